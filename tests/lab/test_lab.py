"""The lab: every experiment gives data, a table, a figure and a verdict that can also come out the other way."""

import copy
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from heedful.errors import HeedfulError
from heedful.inspection.cost import parameters
from heedful.lab import EXPERIMENTS
from heedful.lab.corpora import VARIABLE
from heedful.lab.experiment import ahead, find, read_results, run_and_keep
from heedful.lab.heads import _describe
from heedful.lab.long_range import FAMILIES
from heedful.lab.parallelism import _bytes, _layer_step, _memory
from heedful.lab.positions import _shift
from heedful.lab.report import write_report
from heedful.lab.scaling import _jacobian_norm, _sigmoid_slope, _softmax_slope
from heedful.lab.toy import FIRST, copying, learn, right
from heedful.model.settings import ModelConfig
from heedful.model.transformer import Transformer, sinusoids

pytest.importorskip("matplotlib")
STORED = Path(__file__).resolve().parents[2] / "docs" / "results" / "lab"
LEAST = {"vocabulary": 300, "steps": 1, "layers": 1, "tokens": 256, "repeats": 1}
SHORT = {  # the least that each can do
    "residuals": {"layers": 12, "sequences": 32, "repeats": 1},
    "attention-steps": {},
    "scaling": {"queries": 300, "steps": 3, "repeats": 1},
    "heads": {"sentences": 1, "heads": (1, 2), "steps": 2, "repeats": 1},
    "encoder-decoder": {"steps": 2, "repeats": 1, "longest": 5, "numbers": 2},
    "positions": {"steps": 2, "repeats": 1, "tested": (2, 16, 18)},
    "parallelism": {
        **{"lengths": (8, 16, 32), "widths": (8, 16, 32), "width": 16, "tokens": 64, "repeats": 1},
        **{"sentences": (4, 8, 16), "chains": (4, 8, 16)},
    },
    "long-range": {"steps": 2, "repeats": 2, "longest": 6, "tested": (3, 6), "paths": (2, 4, 8)},
    "sentence-length": {**LEAST, "development": 2, "bounds": (1, 5, 100)},
    "data-size": {"sizes": (30,), "changed_at": 30, **LEAST, "tested": 4},
    "table2": {**LEAST, "steps": 2, "scored": 2, "development": 4},
    "table3": {**LEAST, "d_model": 16, "pairs": 60, "development": 4, "rows": "D"},
    "table4": {"trees": 60, "steps": 1, "layers": 1, "tokens": 256, "sentences": 2, "tested": ((2, 6), (17, 18))},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, toy_corpora):
    """Run every experiment as shortly as can be, once."""
    place = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patch:
        for name, changes in SHORT.items():
            experiment = find(name)
            patch.setattr(experiment, "QUICK", replace(experiment.QUICK, **changes))
            patch.setenv(VARIABLE, str(toy_corpora))
            list(run_and_keep(name, True, place))
    write_report(place)
    return place


def data_of(folder, name):
    return json.loads((folder / f"{name}.json").read_text())["data"]


def test_every_experiment_is_short_here():
    assert SHORT.keys() == EXPERIMENTS.keys()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_result_has_a_table_a_figure_and_a_verdict_with_numbers(folder, name):
    experiment, data = find(name), data_of(folder, name)
    rows = experiment.table(data)
    assert len(rows) > 2
    assert {len(row) for row in rows} == {len(rows[0])}
    assert any(character.isdigit() for character in experiment.verdict(data).text)
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (folder / f"{name}.svg").read_text()


def test_what_is_there_is_not_run_again_unless_the_settings_differ(folder, monkeypatch):
    experiment = find("residuals")
    monkeypatch.setattr(experiment, "QUICK", replace(experiment.QUICK, **SHORT["residuals"]))
    assert list(run_and_keep("residuals", True, folder)) == [f"already in {folder}, with the same settings"]
    monkeypatch.setattr(experiment, "QUICK", replace(experiment.QUICK, layers=3))
    before = data_of(folder, "residuals")
    assert len(list(run_and_keep("residuals", True, folder))) > 1
    assert data_of(folder, "residuals") != before


def test_a_text_that_has_come_since_is_read(tmp_path, monkeypatch):
    experiment, texts = find("table4"), []
    monkeypatch.setattr(experiment, "also", lambda: list(texts))
    monkeypatch.setattr(experiment, "run", lambda _settings: iter(["running"]))
    monkeypatch.setattr("heedful.lab.experiment.find", lambda _name: experiment)
    assert list(run_and_keep("table4", True, tmp_path)) == ["running"]
    texts.append("treebank")
    assert list(run_and_keep("table4", True, tmp_path)) == ["running"]
    assert "--data FOLDER" in json.loads((tmp_path / "table4.json").read_text())["command"]
    assert "already" in next(run_and_keep("table4", True, tmp_path))


def test_a_quick_run_does_not_take_the_place_of_a_whole_one(tmp_path, monkeypatch):
    experiment = find("table4")
    monkeypatch.setattr(experiment, "run", lambda _settings: iter(["running"]))
    monkeypatch.setattr("heedful.lab.experiment.find", lambda _name: experiment)
    assert list(run_and_keep("table4", False, tmp_path)) == ["running"]
    whole = (tmp_path / "table4.json").read_bytes()
    with pytest.raises(HeedfulError, match="the result of a whole run; give another --out"):
        list(run_and_keep("table4", True, tmp_path))
    assert (tmp_path / "table4.json").read_bytes() == whole


@pytest.mark.parametrize("mine", ["[]", "my notes", '{"layers": 3}'])
def test_a_file_of_somebody_else_is_not_taken_for_a_result(tmp_path, mine):
    (tmp_path / "residuals.json").write_text(mine)
    with pytest.raises(HeedfulError, match=r"residuals\.json: no result of an experiment"):
        next(run_and_keep("residuals", True, tmp_path))
    assert (tmp_path / "residuals.json").read_text() == mine
    with pytest.raises(HeedfulError, match=r"residuals\.json: no result of an experiment"):
        read_results(tmp_path)


def test_a_page_of_somebody_else_is_not_replaced_by_a_report(folder, tmp_path):
    shutil.copy(folder / "residuals.json", tmp_path)
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(HeedfulError, match="give another folder"):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_text() == "mine"


def test_a_result_of_earlier_code_is_told_of_and_run_anew(folder, tmp_path, monkeypatch):
    experiment = find("residuals")
    kept = json.loads((folder / "residuals.json").read_text())
    del kept["edition"]  # as results had it before there were editions
    (tmp_path / "residuals.json").write_text(json.dumps(kept))
    monkeypatch.setattr(experiment, "QUICK", SimpleNamespace(**kept["settings"]))
    monkeypatch.setattr("heedful.lab.experiment.asdict", vars)
    assert "already" in next(run_and_keep("residuals", True, tmp_path))
    assert "earlier code" not in write_report(tmp_path).read_text()
    monkeypatch.setattr(experiment, "REVISIONS", ("it is measured otherwise",), raising=False)
    assert "by earlier code: run it anew; since then it is measured otherwise" in write_report(tmp_path).read_text()
    monkeypatch.setattr(experiment, "run", lambda _settings: iter(["running"]))
    assert list(run_and_keep("residuals", True, tmp_path)) == ["running"]
    assert json.loads((tmp_path / "residuals.json").read_text())["edition"] == 2


def test_a_treebank_that_is_tested_on_what_it_trains_on_is_refused(monkeypatch):
    experiment = find("table4")
    trees = ["(S (NP (D the) (N cat)) (V sleeps))"]
    monkeypatch.setattr(experiment, "_has_treebank", lambda: True)
    monkeypatch.setattr(experiment, "_treebank", lambda settings: (trees, [trees for _ in settings.tested]))
    with pytest.raises(HeedfulError, match=r"some that train.trees has not"):
        next(experiment.run(experiment.QUICK))


def test_a_report_replaces_no_readme_of_somebody_else(folder, tmp_path):
    (tmp_path / "residuals.json").write_text((folder / "residuals.json").read_text())
    write_report(tmp_path)
    write_report(tmp_path)  # its own it does
    (tmp_path / "README.md").write_text("# Mine")
    with pytest.raises(HeedfulError, match="give another folder"):
        write_report(tmp_path)
    assert (tmp_path / "README.md").read_text() == "# Mine"


def heads_and_losses(*losses):
    """Return data of two heads that look at different places, and of trainings with one head that end in `losses`."""
    looks = {"encoder.0.0": {"same": 0.9}, "encoder.0.1": {"next": 0.9}}
    trained = {"1": losses, "2": [0.0, 1e-5], "4": [1e-5, 1e-6]}
    runs = {number: [{"loss": loss, "right": 1.0} for loss in each] for number, each in trained.items()}
    return {"heads": {name: {"looks": look, "loss": 1.0} for name, look in looks.items()}, "trained": runs}


def test_one_head_does_worse_only_if_it_does_so_each_time_and_by_more_than_chance():
    assert find("heads").verdict(heads_and_losses(0.5, 0.4)).shown
    assert not find("heads").verdict(heads_and_losses(0.5, 1e-4)).shown


def test_what_was_never_learned_is_not_said_to_have_been(folder):
    data = copy.deepcopy(data_of(folder, "scaling"))
    data["curves"] = {kind: [[2.7, 2.7, 2.7]] for kind in ("scaled", "unscaled")}
    text = find("scaling").verdict(data).text
    assert text.endswith("guessing not within 3 with it and not within 3 without.")


def all_kinds(data, measure, like):
    """Give every kind of layer stack the values of one of them."""
    for found in data["kinds"].values():
        found[measure] = data["kinds"][like][measure]


def mirror(data, measure, rows):
    """Let changes that were for the better be as much for the worse."""
    base = sum(run[measure] for run in data["base"]) / len(data["base"])
    for row in rows:
        row[measure] = 2 * base - row[measure]


def of_memory(change, right):
    return lambda data: [run["memory"].update({change: right}) for run in data["tasks"]["copy"]]


CONTRARY = {  # changes of the data each of which alone takes the claim away: for each condition that no other test has
    "residuals": [
        lambda data: all_kinds(data, "gradient", "pre-norm"),
        lambda data: all_kinds(data, "position", "pre-norm"),
    ],
    "attention-steps": [lambda data: data["differences"].update(output=0.01)],
    "scaling": [
        lambda data: data["softmax"][-1]["gradient"].update(unscaled=data["softmax"][0]["gradient"]["unscaled"]),
        lambda data: data["softmax"][-1]["gradient"].update(scaled=0.4 * data["softmax"][0]["gradient"]["scaled"]),
    ],
    "heads": [lambda data: [head["looks"].update(same=1.0) for head in data["heads"].values()]],
    "encoder-decoder": [
        lambda data: [
            run["memory"].update(dict.fromkeys(list(run["memory"])[:2], 0.7)) for run in data["tasks"]["copy"]
        ],
        lambda data: [run["errors"].update(dict.fromkeys(run["errors"], 0.3)) for run in data["tasks"]["copy"]],
        of_memory("another sentence's", 0.2),
        of_memory("shuffled places", 0.9),
    ],
    "positions": [
        lambda data: data["right"].update(none=data["right"]["sinusoidal"]),
        lambda data: data["right"].update(learned=[[0.0] * len(run) for run in data["right"]["learned"]]),
        lambda data: data["offset_errors"].update(dict.fromkeys(data["offset_errors"], 0.01)),
    ],
    "parallelism": [
        lambda data: data["alone"].update({"self-attention": data["alone"]["recurrent"]}),
        lambda data: data["alone"].update(recurrent=[time / 100 for time in data["alone"]["recurrent"]]),
        lambda data: data["chain"].update(recurrent=data["chain"]["self-attention"]),
        lambda data: data["chain"].update({"self-attention": data["chain"]["recurrent"]}),
    ],
    "long-range": [
        lambda data: data["families"]["lstm"]["right"].update(reverse=[[2.0] * len(data["lengths"])] * 2),
        lambda data: [
            data["families"]["transformer"]["right"].update(reverse=[[1.0, 0.4]] * 2),
            data["families"]["lstm"]["right"].update(reverse=[[0.6, 0.6]] * 2),
        ],
        lambda data: data["families"]["transformer"]["paths"].update(target=data["paths"]),
        lambda data: data["families"]["lstm"].update(paths=data["families"]["transformer"]["paths"]),
    ],
    "sentence-length": [
        lambda data: [run["groups"][-1].update(bleu=101.0) for run in data["families"]["lstm"]],
        lambda data: [run["groups"][-1].update(bleu=28.5) for run in data["families"]["lstm"]],
        lambda data: [run["groups"][0].update(bleu=100.0) for run in data["families"]["transformer"]],
    ],
    "data-size": [lambda data: [run.update(bleu=-1.0) for run in data["families"]["transformer"][-1]["runs"]]],
    "table2": [
        lambda data: [
            point.update(flops=1e9 * point["flops"])
            for run in data["families"]["transformer"]
            for point in run["curve"]
        ],
    ],
    "table3": [
        lambda data: [row.update(data["base"][0]) for row in data["rows"].values()],
        lambda data: mirror(data, "perplexity", [*data["rows"].values()]),
        lambda data: [mirror(data, measure, [*data["rows"].values()][::3]) for measure in ("perplexity", "bleu")],
    ],
    "table4": [
        lambda data: [guess.update(f1=99.0) for guess in data["right_branching"]],
        lambda data: data["families"].update({"lstm-attention": data["families"]["transformer"]}),
    ],
}


def shown_until_contrary(name, data):
    """Have the claim shown by these data, and no more once one part of them is changed."""
    assert find(name).verdict(data).shown, name
    for place, change in enumerate(CONTRARY[name]):
        changed = copy.deepcopy(data)
        change(changed)
        verdict = find(name).verdict(changed)
        assert str(verdict).startswith("Not shown here: "), (name, place)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_data_that_do_not_bear_the_claim_out_are_not_said_to(folder, name):
    for change in CONTRARY[name]:
        data = copy.deepcopy(data_of(folder, name))
        change(data)
        assert not find(name).verdict(data).shown


def test_the_page_of_the_full_runs_is_what_their_data_say(tmp_path):
    for path in STORED.glob("*.json"):
        shutil.copy(path, tmp_path)
    write_report(tmp_path)
    assert (STORED / "README.md").read_text(encoding="utf-8") == (tmp_path / "README.md").read_text(encoding="utf-8")


def test_a_base_model_that_has_not_learned_is_told_of_and_shows_nothing():
    data = data_of(STORED, "table3")
    assert "The base model itself has a BLEU of 0.9: it has hardly begun" in find("table3").verdict(data).text
    for row in data["rows"].values():  # every change as in the paper, beyond any seed's
        perplexity, bleu = row["paper_scores"]
        row.update(perplexity=100 * perplexity, bleu=100 * (bleu - 25.8))
    for run in data["base"]:
        run.update(perplexity=492.0, bleu=0.0)
    assert not find("table3").verdict(data).shown
    for row in [*data["rows"].values(), *data["base"]]:
        row["bleu"] += 20.0
    shown_until_contrary("table3", data)


@pytest.mark.parametrize("name", ["attention-steps", "scaling", "encoder-decoder", "positions"])
def test_a_claim_that_a_full_run_bears_out_is_not_said_of_contrary_data(name):
    shown_until_contrary(name, data_of(STORED, name))


def test_parsing_is_shown_where_it_is_above_the_bound_and_above_recurrence():
    data = data_of(STORED, "table4")
    assert not find("table4").verdict(data).shown
    for run in data["families"]["lstm-attention"]:
        for score in run["scores"]:
            score["f1"] *= 0.9
    shown_until_contrary("table4", data)


def test_a_single_run_is_ahead_by_more_than_a_margin_and_several_by_all_of_them():
    assert (ahead([3.0], [1.0], 1.0), ahead([3.0], [2.5], 1.0), ahead([3.0], [2.5, 2.6], 1.0)) == (True, False, False)
    assert (ahead([3.0, 2.7], [2.5, 2.6], 1.0), ahead([3.0, 2.5], [2.5, 2.6], 1.0)) == (True, False)


def test_data_that_bear_a_claim_out_are_said_to(folder):
    data = copy.deepcopy(data_of(folder, "long-range"))
    for family, found in data["families"].items():
        found["right"] = dict.fromkeys(found["right"], [[1.0, float(family == "transformer")]] * 2)
    shown_until_contrary("long-range", data)
    assert "lstm-attention 0.00 and 1.00, convolution 0.00 and 1.00, lstm 1.00 and 1.00" in str(
        find("long-range").verdict(data)
    )
    data["families"]["transformer"]["paths"]["target"] = data["paths"]
    assert not find("long-range").verdict(data).shown
    data = copy.deepcopy(data_of(folder, "positions"))
    data["right"] = {
        **{"sinusoidal": [[1, 1, 0]], "from 1": [[1, 1, 0]]},
        **{"learned": [[1, 0.9, 0]], "none": [[0, 0, 0]]},
    }
    shown_until_contrary("positions", data)
    shown_until_contrary("attention-steps", data_of(folder, "attention-steps"))
    memory = {"as it is": 1.0, "shuffled places": 1.0, "another sentence's": 0.0, "first half only": 0.3}
    one = {"errors": {"cross.0": 0.9, "cross.1": 0.1}, "memory": memory, "without": {"cross.0": 0.5, "cross.1": 0.0}}
    shown_until_contrary("encoder-decoder", {"tasks": {"copy": [one], "reverse": [one]}, "layers": 2})
    kinds = {"pre-norm": (1.0, 0.8), "post-norm": (0.5, 0.1), "no residuals": (0.01, 0.0)}
    kinds["no residuals, pre-norm"] = (0.02, 0.1)
    data = {"kinds": {kind: {"gradient": [[a, 1.0]], "position": [[1.0, b]]} for kind, (a, b) in kinds.items()}}
    shown_until_contrary("residuals", data | {"connections": [2, 3]})
    data = copy.deepcopy(data_of(folder, "sentence-length"))
    for family, runs in data["families"].items():
        for run in runs:
            run["groups"] = [{"bleu": 30.0}, {"bleu": 29.0 if family == "transformer" else 20.0}]
    shown_until_contrary("sentence-length", data)
    data = {"lengths": [8, 16, 32, 64], "widths": [8, 16, 32], "width": 16, "length": 8, "tokens": 64}
    data |= {key: data_of(folder, "parallelism")[key] for key in ("chains", "chain", "sentences", "models")}
    times = {"self-attention": [1, 4, 16, 64], "recurrent": [4, 8, 16, 32], "convolutional": [1, 2, 4, 8]}
    by_width = {kind: [1.0, 4.0, 16.0] for kind in times}
    data |= {"by_length": times, "alone": dict(times), "by_width": by_width}
    shown_until_contrary("parallelism", data)
    verdict = find("parallelism").verdict(data)
    assert "self-attention 2.00, recurrent 1.00, convolutional 1.00" in verdict.text
    assert "takes 2.0 times as long" in verdict.text
    assert "from n = 64 on recurrence is faster" in verdict.text
    data = data_of(STORED, "data-size")
    for point in data["families"]["transformer"]:
        for run in point["runs"]:
            run["bleu"] += 50.0
    shown_until_contrary("data-size", data)
    data = data_of(STORED, "table2")
    for run in data["families"]["transformer"]:
        for point in run["curve"]:
            point.update(bleu=point["bleu"] + 50.0, flops=point["flops"] / 1e3)
    shown_until_contrary("table2", data)
    shown_until_contrary("scaling", data_of(STORED, "scaling"))
    shown_until_contrary("heads", heads_and_losses(0.5, 0.4))


def test_the_report_is_one_page_without_a_network(folder):
    page = write_report(folder).read_text()
    assert len(read_results(folder)) == len(EXPERIMENTS)
    for name in EXPERIMENTS:
        assert f'<section id="{name}">' in page
        assert f"heedful lab run {name} --quick" in page
    assert page.count("<svg") == len(EXPERIMENTS)
    assert "<script" not in page
    assert 'src="' not in page
    assert 'href="http' not in page.replace('xlink:href="http', "")


@pytest.mark.parametrize(("call", "words"), [(find, "no experiment"), (read_results, "no experiment has been run")])
def test_what_is_not_there_is_said(tmp_path, call, words):
    with pytest.raises(HeedfulError, match=words):
        call(tmp_path / "nothing" if call is read_results else "nothing")


def test_without_matplotlib_nothing_is_begun(monkeypatch, tmp_path):
    monkeypatch.setattr("heedful.lab.experiment.find_spec", lambda _name: None)
    with pytest.raises(HeedfulError, match="pip install"):
        next(run_and_keep("residuals", True, tmp_path))


def test_positions_turn_into_later_ones_by_one_matrix():
    table = sinusoids(60, 16)
    for k in (1, 7, 40):
        torch.testing.assert_close(_shift(table[:-k], k).float(), table[k:], atol=1e-5, rtol=0)


def test_the_norm_of_softmaxs_jacobian_is_that_of_autograd():
    scores = torch.randn(5, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: x.softmax(-1), scores)
    assert float(_jacobian_norm(scores.softmax(-1)[None])) == pytest.approx(float(jacobian.norm()))


def test_the_slopes_of_sigmoid_and_softmax_are_those_of_their_formulas():
    for x in (0.0, 1.5, 6.0):
        p = 1 / (1 + math.exp(-x))
        assert _sigmoid_slope(x) == pytest.approx(p * (1 - p))
        q = math.exp(x) / (math.exp(x) + 15)
        assert _softmax_slope(x, 16) == pytest.approx(q * (1 - q))


def test_what_is_kept_for_the_way_back_is_counted_once_and_without_the_weights():
    layer = torch.nn.Linear(5, 7)
    x = torch.ones(3, 5, requires_grad=True)
    assert _bytes((layer, lambda: layer(x).sum())) == 3 * 5 * 4
    assert _bytes((layer, lambda: layer(x).tanh().square().sum())) == (3 * 5 + 3 * 7) * 4  # read by both, there once


def test_weights_that_normalisation_makes_are_not_counted_as_kept():
    kept = [_bytes(_layer_step("convolutional", length, 16, 1)) for length in (8, 16)]
    weights = 3 * 16 * 32 * 4  # bytes: kernel, width, a half and its gate
    assert abs(kept[1] - 2 * kept[0]) < weights / 10


def test_the_growth_of_memory_is_told_before_and_after_attention_stops_holding_its_scores():
    assert _memory([64, 128, 256, 512, 1024], [1, 4, 16, 8, 16]) == ["2.00", "1.00"]
    assert _memory([64, 128], [1, 4]) == ["2.00", ""]


def test_a_cross_head_is_told_to_look_at_the_aligned_word():
    maps = {"cross.0": np.zeros((1, 3, 4))}
    maps["cross.0"][0, 0, 2] = maps["cross.0"][0, 1, 0] = maps["cross.0"][0, 2, 3] = 1.0  # the end looks at the end
    words = {"source_words": [0, 0, 1, -1], "target_words": [0, 1, -1], "alignment": [(1, 0), (0, 1)]}
    crossed = SimpleNamespace(attention=maps, **words)
    assert _describe([crossed], "cross.0", 0)["looks"]["aligned"] == 1.0
    straight = SimpleNamespace(attention=maps, **{**words, "alignment": [(0, 0), (1, 1)]})
    assert _describe([straight], "cross.0", 0)["looks"]["aligned"] == 0.0


def test_a_decoders_first_position_which_has_no_choice_is_no_look():
    uniform = np.tril(np.ones((1, 3, 3)))
    maps = {"decoder.0": uniform / uniform.sum(-1, keepdims=True)}
    found = _describe([SimpleNamespace(attention=maps, source_words=[], target_words=[], alignment=[])], "decoder.0", 0)
    assert found["looks"]["same"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert found["entropy"] == pytest.approx((math.log(2) + math.log(3)) / 2)
    assert found["distance"] == pytest.approx((1 / 2 + (2 + 1) / 3) / 2)


def test_families_that_are_compared_differ_in_parameters_as_the_verdict_says():
    counts = [
        sum(parameters(ModelConfig(family=family, max_positions=128, **sizes), 20, 20).values())
        for family, sizes in FAMILIES.items()
    ]
    assert counts[0] == max(counts) < 1.34 * min(counts), counts


def test_a_toy_task_is_what_it_says_and_can_be_learned():
    for source, target in copying(9, 2, 5, backwards=True)(50, 3):
        assert 2 <= len(source) - 1 <= 5
        assert target == [*reversed(source[:-1]), source[-1]]
    assert copying(9, 2, 5)(7, 3) == copying(9, 2, 5)(7, 3) != copying(9, 2, 5)(7, 4)
    torch.manual_seed(1)
    config = ModelConfig(encoder_layers=1, decoder_layers=1, d_model=32, d_ff=32, heads=2, dropout=0.0)
    model = Transformer(config, FIRST + 4, FIRST + 4)
    losses = list(learn(model, copying(4, 1, 1), 80, 5e-3))
    assert losses[-1] < 0.5 * math.log(4) / 2
    assert right(model, copying(4, 1, 1)(20, 9)).all()
