"""Promise 7: a model folder is complete and portable, and refused, by name, if anything in it is not as written."""

import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import tomli_w
import torch

from heedful import bundle
from heedful.config import to_table
from heedful.decoding.settings import SearchConfig
from heedful.errors import HeedfulError
from heedful.model.arrays import read_arrays
from heedful.model.ensemble import Ensemble
from heedful.model.family import build_model
from heedful.model.settings import ModelConfig
from heedful.model.weights import read_weights, weights_of, write_weights
from heedful.text.vocabulary import VocabularyConfig, learn
from heedful.translator import Translator

FILES = ["model.toml", "vocabulary.model", "weights.safetensors"]
SEARCH = SearchConfig(beam=3, max_extra=3, length_penalty=0.7)
LINES = ["the cat sees a house", "", "Haus und Baum"]


def write(folder, model, vocabulary):
    bundle.create(folder, to_table(model.config), vocabulary, to_table(SEARCH), {"pairs": 211, "task": "prüfen"})
    write_weights(folder / bundle.WEIGHTS, weights_of(model))


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_model, toy_vocabulary):
    folder = tmp_path_factory.mktemp("bundle")
    size = toy_vocabulary.sizes[0]
    model = tiny_model(encoder_layers=1, decoder_layers=1, source_size=size, target_size=size)
    write(folder, model, toy_vocabulary)
    return folder, Translator(model, toy_vocabulary, SEARCH)


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "copy")


def translations(translator):
    return [[(o.text, o.ids, o.score) for o in outputs] for outputs in translator.translate(LINES)]


def test_a_copied_folder_translates_exactly_as_the_model_that_was_saved(made, copy):
    loaded = Translator.load(copy)
    assert loaded.search == SEARCH
    assert not loaded.model.training
    assert translations(loaded) == translations(made[1])


def test_a_folder_becomes_torch_s_model_only_when_asked_and_is_held_once(copy):
    loaded = bundle.load(copy)
    translator = Translator(loaded, loaded.vocabulary, SEARCH)
    by_arrays = translations(translator)
    assert ("model" in vars(loaded)) == (translator.compiled is None)
    assert translator.model is loaded.model
    assert not loaded.arrays
    again = Translator(loaded, loaded.vocabulary, SEARCH)
    assert again.compiled is translator.compiled
    loaded._compiled.clear()  # as for weights of another type, which are made of the model then
    assert translations(Translator(loaded, loaded.vocabulary, SEARCH)) == by_arrays


@pytest.mark.parametrize("share", ["target", "none"])
def test_two_vocabularies_and_untied_weights_round_trip(tmp_path, tiny_model, share):
    vocabulary = learn(["a cat", "a dog"] * 7, ["eine Katze", "ein Hund"] * 5, VocabularyConfig(size=277, joint=False))
    sizes = dict(zip(("source_size", "target_size"), vocabulary.sizes, strict=True))
    model = tiny_model(share=share, positions="learned", normalization="pre", **sizes)
    write(tmp_path, model, vocabulary)
    loaded = Translator.load(tmp_path)
    assert loaded.model.config == model.config
    assert not loaded.vocabulary.joint
    for (name, one), (other_name, other) in zip(model.named_parameters(), loaded.model.named_parameters(), strict=True):
        assert name == other_name
        assert torch.equal(one, other)
    tied = loaded.model.output.weight is loaded.model.target_embedding.token.weight
    assert tied == (share == "target")
    assert translations(loaded) == translations(Translator(model, vocabulary, SEARCH))


def test_saving_twice_writes_the_same_bytes(made, tmp_path):
    write(tmp_path, made[1].model, made[1].vocabulary)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (made[0] / name).read_bytes()


def test_a_bundle_holds_these_files_and_nothing_pickled(made):
    assert sorted(path.name for path in made[0].iterdir()) == FILES
    for path in made[0].iterdir():
        content = path.read_bytes()
        assert not content.startswith((b"PK", b"\x80"))
        assert b"torch._utils" not in content


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(HeedfulError, match=name):
        bundle.load(copy)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_by_name(copy, name, kept):
    path = copy / name
    content = path.read_bytes().rstrip(b"\n")  # a manifest without its last line break is the same manifest
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(HeedfulError, match=name):
        bundle.load(copy)


@pytest.mark.parametrize("name", FILES)
def test_one_byte_less_or_more_is_refused_by_name(copy, name):
    path = copy / name
    content = path.read_bytes()
    path.write_bytes(content.rstrip(b"\n")[:-1])
    with pytest.raises(HeedfulError, match=name):
        bundle.load(copy)
    path.write_bytes(content + b"x")
    with pytest.raises(HeedfulError, match=name):
        bundle.load(copy)


@pytest.mark.parametrize("flip", [0x01, 0x80])
@pytest.mark.parametrize("name", FILES)
def test_one_altered_byte_is_refused_by_name(copy, name, flip):
    path = copy / name
    content = bytearray(path.read_bytes())
    for position in {*range(0, len(content), len(content) // 29), *range(11), len(content) - 2}:
        content[position] ^= flip
        path.write_bytes(content)
        with pytest.raises(HeedfulError, match=name):
            bundle.load(copy)
        content[position] ^= flip
    path.write_bytes(content)
    bundle.load(copy)


def test_any_byte_of_the_manifest_altered_is_refused_or_means_the_same(copy):
    path = copy / "model.toml"
    content = bytearray(path.read_bytes())
    meaning = tomllib.loads(content.decode())
    for position in range(len(content)):
        content[position] ^= 1
        path.write_bytes(content)
        try:
            read = bundle.read_manifest(copy)
        except HeedfulError as error:
            read, refusal = meaning, str(error)
        else:
            refusal = str(path)
        assert read == meaning
        assert str(copy) in refusal
        content[position] ^= 1


@pytest.mark.parametrize("reading", [read_weights, read_arrays])
def test_bytes_all_over_the_weights_header_altered_are_refused(copy, reading):
    path = copy / bundle.WEIGHTS
    content = bytearray(path.read_bytes())
    header = int.from_bytes(content[:8], "little")
    for position in (*range(11), *range(11, 8 + header, 7)):
        content[position] ^= 1
        path.write_bytes(content)
        with pytest.raises(HeedfulError, match=bundle.WEIGHTS):
            reading(path)
        content[position] ^= 1


def test_both_readers_read_the_same_and_only_what_a_model_has(copy):
    weights, arrays = read_weights(copy / bundle.WEIGHTS), read_arrays(copy / bundle.WEIGHTS)
    narrow = {name: tensor.bfloat16() for name, tensor in weights.items()}
    assert {name: array.tolist() for name, array in arrays.items()} == {n: w.tolist() for n, w in weights.items()}
    write_weights(copy / bundle.WEIGHTS, narrow)
    found = {name: torch.from_numpy(array) for name, array in read_arrays(copy / bundle.WEIGHTS).items()}
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in narrow.items())
    write_weights(copy / bundle.WEIGHTS, {"seen": torch.tensor([1, 2])})
    with pytest.raises(HeedfulError, match="numbers of type I64, where a model has F32 or BF16"):
        read_arrays(copy / bundle.WEIGHTS)


def test_weights_of_another_model_are_refused_by_name(copy, tiny_model):
    write_weights(copy / bundle.WEIGHTS, weights_of(tiny_model()))
    with pytest.raises(HeedfulError, match=bundle.WEIGHTS):
        list(Translator.load(copy).translate(LINES))
    with pytest.raises(HeedfulError, match=bundle.WEIGHTS):
        bundle.load(copy).model  # noqa: B018 - made when asked for


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc/self/maps")
def test_weights_that_were_read_are_no_view_of_their_file(tmp_path):
    """Or its folder could not be removed on a network's file system, as that of an older state is."""
    write_weights(tmp_path / "weights.safetensors", {"a": torch.ones(8192)})
    kept = read_weights(tmp_path / "weights.safetensors")
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    assert kept["a"].sum() == 8192


def test_a_manifest_edited_by_hand_is_refused(copy):
    path = copy / "model.toml"
    manifest = tomllib.loads(path.read_text(encoding="utf-8"))
    manifest["search"]["beam"] = 5
    path.write_text(tomli_w.dumps(manifest), encoding="utf-8")
    with pytest.raises(HeedfulError, match=r"model\.toml: altered"):
        bundle.load(copy)


def test_a_newer_format_asks_for_an_upgrade(copy):
    path = copy / "model.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(f"format = {bundle.FORMAT}", f"format = {bundle.ENSEMBLE + 1}"), encoding="utf-8")
    with pytest.raises(HeedfulError, match="upgrade heedful"):
        bundle.load(copy)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(HeedfulError, match=r"model\.toml"):
        Translator.load(tmp_path)
    with pytest.raises(HeedfulError, match="absent"):
        Translator.load(tmp_path / "absent")


def test_a_model_folder_comes_before_a_model_in_the_box_of_the_same_name(tmp_path, monkeypatch):
    box = tmp_path / "box"
    (box / "xx-yy").mkdir(parents=True)
    (box / "xx-yy" / "model.toml").write_text("")
    monkeypatch.setattr("heedful.bundle.BOX", box)
    monkeypatch.chdir(tmp_path)
    assert bundle.locate("xx-yy") == box / "xx-yy"
    assert bundle.locate("zz") == Path("zz")
    (tmp_path / "xx-yy").mkdir()  # of text in these languages, say
    assert bundle.locate("xx-yy") == box / "xx-yy"
    (tmp_path / "xx-yy" / "model.toml").write_text("")
    assert bundle.locate("xx-yy") == Path("xx-yy")
    with pytest.raises(HeedfulError, match="models in the box: xx-yy"):
        bundle.load(Path("nowhere"))


def test_an_ensemble_is_one_folder_that_translates_as_its_members_together(made, tmp_path, tiny_model, toy_vocabulary):
    size = toy_vocabulary.sizes[0]
    models = [made[1].model, tiny_model(seed=2, d_model=20, source_size=size, target_size=size)]
    write(tmp_path / "b", models[1], toy_vocabulary)
    bundle.unite([made[0], tmp_path / "b"], tmp_path / "ab")
    bundle.unite([tmp_path / "ab", made[0]], tmp_path / "aba")
    for folder, members in ((tmp_path / "ab", models), (tmp_path / "aba", [*models, models[0]])):
        shutil.copytree(folder, tmp_path / "copy", dirs_exist_ok=True)
        loaded = Translator.load(tmp_path / "copy")
        assert loaded.search == SEARCH
        assert translations(loaded) == translations(Translator(Ensemble(members), toy_vocabulary, SEARCH))


def test_an_ensemble_aligns_words_by_the_attention_that_it_shows(made, copy, tmp_path, toy_vocabulary):
    size = toy_vocabulary.sizes[0]
    lstm = build_model(ModelConfig(family="lstm", d_model=8, encoder_layers=1, decoder_layers=1), size, size)
    write(tmp_path / "lstm", lstm, toy_vocabulary)
    bundle.keep_alignment(copy, "cross.0.1", 0.5)
    bundle.unite([tmp_path / "lstm", copy, made[0]], tmp_path / "one")
    bundle.unite([tmp_path / "one", tmp_path / "lstm"], tmp_path / "again")
    bundle.unite([made[0], copy], tmp_path / "without")
    found = [Translator.load(tmp_path / name).aligner for name in ("one", "again", "without")]
    assert found == ["cross.0.1", "cross.0.1", ""]


def test_models_that_do_not_belong_together_are_not_put_together(made, copy, tmp_path, tiny_model):
    vocabulary = learn(["a cat", "a dog"] * 7, ["eine Katze", "ein Hund"] * 5, VocabularyConfig(size=277))
    write(tmp_path / "other", tiny_model(source_size=277, target_size=277), vocabulary)
    with pytest.raises(HeedfulError, match="vocabulary is not that of"):
        bundle.unite([made[0], tmp_path / "other"], tmp_path / "out")
    with pytest.raises(HeedfulError, match="exists already"):
        bundle.unite([made[0], copy], copy)
    bundle.amend(copy, capitals=True)
    with pytest.raises(HeedfulError, match="capitals otherwise than"):
        bundle.unite([made[0], copy], tmp_path / "out")
    speaking = [shutil.copytree(made[0], tmp_path / name) for name in ("german", "french", "silent")]
    for folder, languages in zip(speaking, (["en", "de"], ["en", "fr"], []), strict=True):
        bundle.amend(folder, languages=languages)
    german, french, silent = speaking
    with pytest.raises(HeedfulError, match=r"french: translates between other languages than .*german; leave it out"):
        bundle.unite([german, french], tmp_path / "out")
    for folders in ([german, silent], [silent, german]):
        with pytest.raises(HeedfulError, match=r"silent: does not say between which languages, as .*german does"):
            bundle.unite(folders, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("device", ["cuda:99", "nothing"])
def test_a_device_that_is_not_here_is_said_before_anything_is_read(made, device):
    with pytest.raises(HeedfulError, match=f"device {device}: not to be had here .*; cpu always is"):
        Translator.load(made[0], device)
