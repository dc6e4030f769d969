"""The models in the box: there, small, whose text they learned from, and good enough for what people type."""

import pytest
import sacrebleu

from heedful import Translator, bundle
from heedful.text.corpus import read_lines

NAMES = sorted(place.parent.name for place in bundle.BOX.glob("*/model.toml"))
ASKED = {"en-de": ("Where is the station", "Bahnhof"), "de-en": ("wo ist der bahnhof", "station")}
MEGABYTES = 12


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def translator(name):
    return Translator.load(name)


def test_a_model_is_small_and_says_whose_text_it_learned_from(name):
    folder = bundle.locate(name)
    manifest = bundle.read_manifest(folder)
    assert sum(file.stat().st_size for file in folder.iterdir()) <= MEGABYTES * 1e6
    assert "CC BY 2.0" in manifest["provenance"]["data"]
    assert "-".join(manifest["languages"]) == name
    assert not (folder / "state").exists()


def test_a_question_without_its_mark_and_in_lower_case_is_understood(name, translator):
    text, word = ASKED[name]
    (outputs,) = translator.translate([text])
    assert word in outputs[0].text


def test_capitals_stay_capitals_and_a_typo_is_read_over(name, translator):
    inputs = {
        "en-de": (["WHERE IS THE STATION?", "Where is the staton?"], "Bahnhof"),
        "de-en": (["WO IST DER BAHNHOF?", "Wo ist der Banhof?"], "station"),
    }
    lines, word = inputs[name]
    shouted, mistyped = (outputs[0].text for outputs in translator.translate(lines))
    assert shouted.isupper()
    assert word.upper() in shouted
    assert word in mistyped


@pytest.mark.slow
def test_development_sentences_are_translated_well(name, translator, data_folder):
    source, target = name.split("-")
    folder = data_folder("tatoeba-en-de")
    sources, references = ([line or "" for line in read_lines(folder / f"val.{side}")] for side in (source, target))
    outputs = [found[0].text for found in translator.translate(sources)]
    assert sacrebleu.corpus_bleu(outputs, [references]).score >= 35
