"""Promise 7: a bundle of an older version still translates to its stored text."""

import json
from pathlib import Path

import pytest

from heedful import Translator

GOLDEN = sorted((Path(__file__).parent / "golden").glob("format-*"))


def test_there_is_something_old():
    assert "format-1" in [folder.name for folder in GOLDEN]


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda path: path.name)
def test_an_old_bundle_still_translates_to_its_stored_text(folder):
    rows = [json.loads(line) for line in (folder / "expected.jsonl").read_text().splitlines()]
    found = [outputs[0] for outputs in Translator.load(folder).translate(row["source"] for row in rows)]
    assert [output.text for output in found] == [row["text"] for row in rows]
    assert [output.score for output in found] == pytest.approx([row["score"] for row in rows], abs=1e-4)
    assert len({row["text"] for row in rows}) > 10
