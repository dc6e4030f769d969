import json

import pytest

from heedful.training.log import forget_unsaved, write_event
from heedful.training.loop import Ended, Evaluation, Notice, Saved, Step


def step(number):
    return Step(number, 50, 1.0, 1.0, 0.1, 7, 9.0, 0)


def test_what_comes_after_the_saved_state_is_forgotten_notices_too(tmp_path):
    path = tmp_path / "log.jsonl"
    with path.open("w") as log:
        for event in (Notice("first"), step(10), Saved(20, tmp_path), Notice("of step 30"), step(30)):
            write_event(log, event)
        log.write('{"event": "step", "ti')
    forget_unsaved(path, tmp_path / "step-00000020")
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record.get("message", record.get("step")) for record in kept] == ["first", 10, 20]
    forget_unsaved(path, None)
    assert not path.read_text()


@pytest.mark.parametrize("again", [True, False])
def test_an_evaluation_is_forgotten_where_it_will_be_made_again(tmp_path, again):
    path = tmp_path / "log.jsonl"
    first, last = Evaluation(10, {"loss": 2.0}, best=True), Evaluation(20, {"loss": 1.0}, best=True)
    with path.open("w") as log:
        for event in (first, step(20), Saved(20, tmp_path), last, Ended(20, "steps", 9.0), step(30)):
            write_event(log, event)
    forget_unsaved(path, tmp_path / "step-00000020", evaluated_again=again)
    kept = [json.loads(line)["event"] for line in path.read_text().splitlines()]
    assert kept == ["evaluation", "step", "saved", *([] if again else ["evaluation", "ended"])]
