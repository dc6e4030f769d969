"""Promise 8 and the rest of what a translator owes its caller, on a random model that writes rubbish."""

import os
import signal
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heedful.decoding.hypothesis import length_penalty
from heedful.decoding.settings import SearchConfig
from heedful.errors import HeedfulError
from heedful.text.vocabulary import END, VocabularyConfig, learn
from heedful.training.loop import mean_loss
from heedful.translator import Output, Translator

LINES = ["the cat sees a house", "", "Haus", "   ", "ein Hund und eine Katze", "日本語 ß 🙂", "a"]
EMPTY = [Output("", 0.0, 0.0, [])]


@pytest.fixture(scope="module")
def translator(tiny_model, toy_vocabulary):
    size = toy_vocabulary.sizes[0]
    model = tiny_model(encoder_layers=1, decoder_layers=2, source_size=size, target_size=size)
    with torch.no_grad():  # likes to end now and then, so that lengths differ
        model.output.weight[END] += model.output.weight.mean(0) + 0.1
    return Translator(model, toy_vocabulary, SearchConfig(beam=3, max_extra=5))


def test_no_numbers_in_the_middle_of_a_model_are_not_passed_over(tiny_model, toy_vocabulary):
    size = toy_vocabulary.sizes[0]
    model = tiny_model(source_size=size, target_size=size, d_ff=128)  # whole vectors
    with torch.no_grad():
        model.decoder[0].feed_forward.inner.weight.fill_(float("nan"))
    with pytest.raises(HeedfulError, match="its weights are damaged"):
        list(Translator(model, toy_vocabulary).translate(["a"]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # that is what is tried here
def test_a_forked_process_has_threads_of_its_own(translator):
    lines = ["the cat", "Haus", "ein Hund"]

    def texts():
        return [found[0].text for found in translator.translate(lines, batch=1, workers=2)]

    expected = texts()
    child = os.fork()
    if not child:  # no test framework here, whatever happens
        signal.alarm(20)
        try:
            os._exit(0 if texts() == expected else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("search", [SearchConfig(), SearchConfig(sample=True)])
def test_a_model_of_no_numbers_is_told_of(tiny_model, toy_vocabulary, search):
    size = toy_vocabulary.sizes[0]
    model = tiny_model(encoder_layers=1, decoder_layers=1, source_size=size, target_size=size)
    with torch.no_grad():
        model.output.weight.fill_(float("nan"))
    translator = Translator(model, toy_vocabulary, search)
    with pytest.raises(HeedfulError, match="its weights are damaged"):
        list(translator.translate(["a"]))
    with pytest.raises(HeedfulError, match="its weights are damaged"):
        translator.explain("a", SearchConfig())
    assert list(translator.translate([""])) == [EMPTY]


def test_each_line_gives_one_entry_and_empty_lines_stay_empty(translator):
    found = list(translator.translate(LINES))
    assert len(found) == len(LINES)
    for line, outputs in zip(LINES, found, strict=True):
        assert len(outputs) == 1
        if line.strip():
            assert outputs[0].ids[-1] == END
        else:
            assert outputs == EMPTY


@pytest.mark.parametrize("sample", [False, True])
@settings(max_examples=11, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.text(max_size=13), max_size=5))
def test_any_unicode_text_gives_exactly_one_line_each(translator, sample, lines):
    config = SearchConfig(beam=2, n_best=2, max_extra=3, sample=sample)
    found = list(translator.translate(lines, config, align=True))
    assert len(found) == len(lines)
    for outputs in found:
        assert outputs
        for output in outputs:
            assert "\n" not in output.text
            assert "\r" not in output.text
            output.text.encode("utf-8")
    scored = translator.score(lines, lines[::-1])
    assert len(scored) == len(lines)


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_scoring_what_was_found_gives_the_reported_score(translator, alpha, sample):
    config = SearchConfig(beam=5, n_best=5, max_extra=5, length_penalty=alpha, sample=sample)
    own = Translator(translator.model, translator.vocabulary, config)
    lines = [line for line in LINES if line.strip()]
    sources = translator.vocabulary.encode_source(lines)
    for source, outputs in zip(sources, own.translate(lines), strict=True):
        assert len(outputs) == 5
        scored = own.score_ids([source] * 5, [output.ids for output in outputs], batch=2)
        for one, other in zip(outputs, scored, strict=True):
            assert one.score == pytest.approx(other.score, rel=1e-6, abs=1e-5)
            assert one.log_probability == pytest.approx(other.log_probability, abs=1e-4)
            assert (one.ids, one.text) == (other.ids, other.text)


def test_scores_come_in_the_order_of_their_lines_whatever_the_batch(translator):
    targets = LINES[::-1]
    found = [translator.score(LINES, targets, batch=batch) for batch in (1, 2, 64)]
    for number, (source, target) in enumerate(zip(LINES, targets, strict=True)):
        [alone] = translator.score([source], [target])
        for outputs in found:
            assert outputs[number].ids == alone.ids == translator.vocabulary.encode_target([target])[0]
            assert outputs[number].score == pytest.approx(alone.score, abs=1e-5)
        expected = alone.log_probability / length_penalty(len(alone.ids), translator.search.length_penalty)
        assert alone.score == pytest.approx(expected)


def test_scores_are_the_same_where_logits_have_little_room(translator, monkeypatch):
    expected = [output.log_probability for output in translator.score(LINES, LINES)]
    monkeypatch.setattr("heedful.decoding.forced.ROOM", 1)
    assert [output.log_probability for output in translator.score(LINES, LINES)] == pytest.approx(expected, abs=1e-4)


def test_sources_and_targets_must_be_as_many(translator):
    with pytest.raises(HeedfulError, match="2 sources and 1 targets"):
        translator.score(["a", "b"], ["c"])


def test_the_n_best_are_distinct_and_best_first(translator):
    config = SearchConfig(beam=7, n_best=5, max_extra=5)
    for outputs in translator.translate([line for line in LINES if line.strip()], config):
        scores = [output.score for output in outputs]
        assert len(scores) == 5
        assert scores == sorted(scores, reverse=True)
        assert len({tuple(output.ids) for output in outputs}) == 5


@pytest.mark.parametrize("sample", [False, True])
def test_neither_batch_nor_window_changes_a_translation(translator, sample):
    config = SearchConfig(beam=3, n_best=2, max_extra=5, sample=sample)
    expected = [[o.ids for o in outputs] for outputs in translator.translate(LINES, config)]
    for batch, window in ((1, 1), (2, 3), (5, 4096)):
        found = translator.translate(LINES, config, batch=batch, window=window)
        assert [[o.ids for o in outputs] for outputs in found] == expected


def test_threads_that_translate_side_by_side_change_no_translation(translator):
    lines = [f"the cat sees {'a house and ' * (i % 7)}ein Hund {i}" for i in range(61)]
    expected = [[(o.ids, o.score) for o in outputs] for outputs in translator.translate(lines, workers=1)]
    for batch, workers, count in ((3, 4, 61), (64, 4, 61), (64, 4, 3), (1, 7, 61)):
        again = Translator(translator.model, translator.vocabulary, translator.search)
        found = again.translate(lines[:count], batch=batch, workers=workers)
        assert [[(o.ids, o.score) for o in outputs] for outputs in found] == expected[:count]


def test_lines_are_taken_a_window_at_a_time(translator):
    taken = []
    found = translator.translate((taken.append(line) or line for line in LINES), window=2)
    next(found)
    assert len(taken) == 2


def test_progress_counts_every_line_once(translator):
    done = []
    list(translator.translate(LINES, batch=2, window=5, progress=done.append))
    assert sum(done) == len(LINES)


def test_outputs_begin_with_their_prefixes(translator):
    prefixes = ["ein Haus", "", "und"]  # fewer than lines: the rest is free
    found = list(translator.translate(LINES, prefixes=prefixes))
    free = list(translator.translate(LINES))
    assert len(found) == len(LINES)
    for prefix, line, [output], [unforced] in zip([*prefixes, *[""] * 4], LINES, found, free, strict=True):
        if not line.strip() or not prefix:
            assert output.ids == unforced.ids
            continue
        ids = translator.vocabulary.encode_target([prefix])[0][:-1]
        assert output.ids[: len(ids)] == ids
        assert output.text.startswith(prefix)


def test_alignments_name_words_that_exist_one_for_each_target_word(translator):
    config = SearchConfig(beam=3, n_best=3, max_extra=5)
    plain = list(translator.translate(LINES, config))
    for line, outputs, unaligned in zip(LINES, translator.translate(LINES, config, align=True), plain, strict=True):
        assert [o.ids for o in outputs] == [o.ids for o in unaligned]
        assert [o.score for o in outputs] == [o.score for o in unaligned]
        for output in outputs:
            links = output.alignment
            assert [target for _, target in links] == list(range(len(links)))
            assert all(0 <= source < len(line.split()) for source, _ in links)
            assert not line.strip() or not output.ids[:-1] or links


def test_nothing_in_nothing_out(translator):
    assert list(translator.translate([])) == []
    assert translator.score([], []) == []


def test_bad_settings_are_refused_before_anything_is_read(translator):
    with pytest.raises(HeedfulError, match="n_best"):
        list(translator.translate((pytest.fail("read") for _ in LINES), SearchConfig(beam=2, n_best=3)))


def test_a_line_in_capitals_is_translated_as_in_lower_case_and_put_back(translator):
    loud, lines = replace(translator, capitals=True), ["THE CAT SEES", "the cat sees", "CAT"]
    shouted, plain = ([outputs[0] for outputs in each.translate(lines)] for each in (loud, translator))
    assert (shouted[0].text, shouted[0].ids) == (plain[1].text.upper(), plain[1].ids)
    assert shouted[1:] == plain[1:]  # one word alone is an abbreviation
    [scored] = loud.score(lines[:1], [shouted[0].text])
    [of_plain] = translator.score(lines[1:2], [plain[1].text])
    assert (scored.text, scored.score) == (of_plain.text.upper(), of_plain.score)


def test_the_tag_of_a_line_in_capitals_stays_as_it_is(translator):
    loud = replace(translator, capitals=True)
    for tag in ("<2DE>", "<2de>"):
        ids, shouted = loud.reader.encode([f"{tag} THE CAT SEES"])
        assert shouted == [True]
        assert ids == translator.vocabulary.encode_source([f"{tag} the cat sees"])


def test_a_prefix_of_a_line_in_capitals_is_read_as_the_line_is(translator):
    loud, config = replace(translator, capitals=True), SearchConfig(beam=2, max_extra=5)
    lines, prefixes = ["THE CAT SEES", "THE CAT SEES", "the cat sees"], ["EIN HUND", "Ein", "ein \ud800"]
    [in_capitals], [mixed], [broken] = loud.translate(lines, config, prefixes=prefixes)
    [[quiet]] = translator.translate(["the cat sees"], config, prefixes=["ein hund"])
    assert (in_capitals.text, in_capitals.ids) == (quiet.text.upper(), quiet.ids)
    assert mixed.text.startswith("EIN")
    assert broken.text.startswith("ein ?")


def test_a_cased_translation_of_a_line_in_capitals_is_scored_as_it_stands(translator):
    loud = replace(translator, capitals=True)
    [scored], [expected] = loud.score(["THE CAT SEES"], ["Ein Haus"]), translator.score(["the cat sees"], ["Ein Haus"])
    assert (scored.text, scored.ids, scored.score) == (expected.text, expected.ids, expected.score)
    [scored], [expected] = (
        loud.score(["THE CAT SEES"], ["DIE STRAßE"]),
        translator.score(["the cat sees"], ["die straße"]),
    )
    assert (scored.ids, scored.score) == (expected.ids, expected.score)


def test_a_prefix_that_no_output_can_begin_with_is_refused(tiny_model):
    words = learn(["the cat"] * 9, ["ein Kater"] * 9, VocabularyConfig(kind="characters", byte_fallback=False))
    model = tiny_model(source_size=words.sizes[0], target_size=words.sizes[1])
    with pytest.raises(HeedfulError, match="prefix 2: the model's vocabulary lacks a part of it"):
        list(Translator(model, words).translate(["the cat"] * 2, prefixes=["ein", "ein Kaffee"]))


def test_a_line_or_prefix_that_the_model_has_no_positions_for_is_named(tiny_model, toy_vocabulary):
    size = toy_vocabulary.sizes[0]
    model = tiny_model(source_size=size, target_size=size, positions="learned", max_positions=9)
    short, long = Translator(model, toy_vocabulary, SearchConfig(max_extra=5)), "the cat " * 9
    with pytest.raises(HeedfulError, match=r"line 3: \d+ tokens, but the model learned 9 positions"):
        list(short.translate(["the", "", long], window=2))
    with pytest.raises(HeedfulError, match="prefix 2: "):
        list(short.translate(["the", "cat"], prefixes=["the", long]))
    assert short.translate_document(f"{long}\n\n{long}").count("\n\n") == 1, "a text may have any length"
    for source, target, named in (("the", long, "target 8: "), (long, "the", "source 8: ")):
        with pytest.raises(HeedfulError, match=named):
            short.score(["the", source], ["the", target], start=6)


def test_the_mean_loss_is_what_scoring_gives_a_token(tiny_model, toy_vocabulary):
    size = toy_vocabulary.sizes[0]
    translator = Translator(tiny_model(source_size=size, target_size=size), toy_vocabulary)
    sources, targets, _ = translator.reader.encode_pairs(["the cat", "a dog sees a house"], ["a dog sees", "the"])
    scored = translator.score_ids(sources, targets)
    expected = -sum(one.log_probability for one in scored) / sum(map(len, targets))
    assert mean_loss(translator.model, sources, targets) == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def reverse(tiny_model, toy_vocabulary):
    size = toy_vocabulary.sizes[0]
    return Translator(tiny_model(seed=2, source_size=size, target_size=size), toy_vocabulary)


@pytest.mark.parametrize("weight", [0.0, 100.0])
def test_a_model_of_the_other_direction_orders_what_the_beam_found(translator, reverse, weight):
    config = SearchConfig(beam=3, n_best=3, max_extra=5, length_penalty=1.2, reverse_weight=weight)
    alone = list(translator.translate(LINES, config))
    both = translator.with_reverse(reverse)
    for line, plain, found in zip(LINES, alone, both.translate(LINES, config, batch=2), strict=True):
        if not line.strip():
            assert found == EMPTY
            continue
        expected = {}
        for output in plain:
            [back] = reverse.score([output.text], [line])
            expected[tuple(output.ids)] = output.score + weight * back.score
        assert [tuple(output.ids) for output in found] == sorted(expected, key=expected.get, reverse=True)
        assert [output.score for output in found] == pytest.approx(sorted(expected.values(), reverse=True), rel=1e-4)
    best = [found[0].ids for found in both.translate(LINES, replace(config, n_best=1))]
    assert best == [found[0].ids for found in both.translate(LINES, config)]
    assert (best == [found[0].ids for found in alone]) == (weight == 0)


def test_with_a_model_of_the_other_direction_windows_prefixes_and_alignments_stay_as_they_are(translator, reverse):
    both, config = translator.with_reverse(reverse), SearchConfig(beam=3, max_extra=5, reverse_weight=100.0)
    begun = ["ein"] * len(LINES)
    found = list(both.translate(LINES, config, prefixes=begun, align=True))
    by_window = list(both.translate(LINES, config, prefixes=begun, align=True, window=2))
    assert [one[0].ids for one in found] == [one[0].ids for one in by_window]
    for line, (output,) in zip(LINES, found, strict=True):
        assert output.text.startswith("ein") or not line.strip()
        assert output.alignment or not line.strip()
    drawn = list(both.translate(LINES, SearchConfig(sample=True, n_best=3, max_extra=5, reverse_weight=100.0)))
    assert all(one == sorted(one, key=lambda output: -output.score) for one in drawn)


def test_a_line_in_capitals_is_judged_in_lower_case_by_the_other_model_too(translator, reverse):
    loud = replace(translator, capitals=True).with_reverse(reverse)
    quiet, config = translator.with_reverse(reverse), SearchConfig(beam=3, n_best=3, max_extra=5, reverse_weight=100.0)
    [shouted], [plain] = loud.translate(["THE CAT SEES"], config), quiet.translate(["the cat sees"], config)
    assert [output.ids for output in shouted] == [output.ids for output in plain]


def test_what_the_other_model_has_no_positions_for_stays_in_its_order(translator, tiny_model, toy_vocabulary):
    size = toy_vocabulary.sizes[0]
    short = tiny_model(source_size=size, target_size=size, positions="learned", max_positions=3)
    config = SearchConfig(beam=3, n_best=3, max_extra=5, reverse_weight=100.0)
    both = translator.with_reverse(Translator(short, toy_vocabulary))
    assert list(both.translate(LINES[:1], config)) == list(translator.translate(LINES[:1], config))


def test_a_tag_of_the_direction_is_not_for_the_other_model_to_guess(translator, reverse):
    config = SearchConfig(beam=3, n_best=3, max_extra=5, reverse_weight=100.0)
    line, both = "<2de> the cat sees", translator.with_reverse(reverse)
    [plain], [found] = translator.translate([line], config), both.translate([line], config)
    expected = {
        output.text: output.score + 100 * reverse.score([output.text], ["the cat sees"])[0].score for output in plain
    }
    assert [output.score for output in found] == pytest.approx(sorted(expected.values(), reverse=True), rel=1e-4)


@pytest.mark.parametrize(("patience", "outputs"), [(1.0, 4), (0.5, 2), (0.6, 3), (0.3, 2)])
def test_another_model_chooses_among_what_there_is_when_the_search_ends(
    translator, reverse, monkeypatch, patience, outputs
):
    seen = []
    monkeypatch.setattr("heedful.translator._ordered_with", lambda _, lines, found, *rest: seen.extend(found) or found)
    list(translator.with_reverse(reverse).translate(LINES, SearchConfig(beam=4, patience=patience, max_extra=20)))
    assert {len(found) for found in seen} == {outputs}


def test_a_document_may_be_drawn_with_a_model_of_the_other_direction(translator, reverse):
    config = SearchConfig(sample=True, n_best=3, max_extra=5, reverse_weight=100.0)
    both = translator.with_reverse(reverse)
    sentence = "the cat sees a house"
    [[best, *_]] = both.translate([sentence], config)
    assert both.translate_document(sentence, config) == best.text


def test_only_a_model_of_the_other_direction_can_check_and_only_a_beam(translator, reverse):
    there, back = (replace(one, languages=("en", "de")) for one in (translator, reverse))
    with pytest.raises(HeedfulError, match="a model for en-de cannot check en-de"):
        there.with_reverse(back)
    assert there.with_reverse(replace(back, languages=("de", "en"))).reverse
    with pytest.raises(HeedfulError, match="one output to choose from"):
        list(translator.with_reverse(reverse).translate(LINES, SearchConfig(beam=1)))
    with pytest.raises(HeedfulError, match="wait for more with patience"):
        list(translator.with_reverse(reverse).translate(LINES, SearchConfig(beam=4, patience=0.25)))
