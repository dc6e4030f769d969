import json

from heedful.training.log import forget_unsaved, write_event
from heedful.training.loop import Notice, Saved, Step


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
