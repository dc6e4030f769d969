import json

from heedful.training.log import forget_unsaved, write_event
from heedful.training.loop import Evaluation, Notice, Saved, Step


def step(number):
    return Step(number, 50, 1.0, 1.0, 0.1, 7, 9.0, 0)


def a_state(folder, number, evaluated):
    place = folder / f"step-{number:08d}"
    place.mkdir()
    (place / "state.json").write_text(json.dumps({"step": number, "evaluated": evaluated}))
    return place


def test_what_comes_after_the_saved_state_is_forgotten_notices_too(tmp_path):
    path = tmp_path / "log.jsonl"
    with path.open("w") as log:
        for event in (Notice("first"), step(10), Saved(20, tmp_path), Notice("of step 30"), step(30)):
            write_event(log, event)
        log.write('{"event": "step", "ti')
    forget_unsaved(path, a_state(tmp_path, 20, evaluated=20))
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record.get("message", record.get("step")) for record in kept] == ["first", 10, 20]
    forget_unsaved(path, None)
    assert not path.read_text()


def test_an_evaluation_that_will_be_made_again_is_forgotten(tmp_path):
    path = tmp_path / "log.jsonl"
    known, again = Evaluation(10, {"loss": 2.0}, best=True), Evaluation(20, {"loss": 1.0}, best=True)
    with path.open("w") as log:
        for event in (known, step(20), Saved(20, tmp_path), again, Notice("of the evaluation"), step(30)):
            write_event(log, event)
    forget_unsaved(path, a_state(tmp_path, 20, evaluated=10))
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(record["event"], record["step"]) for record in kept] == [("evaluation", 10), ("step", 20), ("saved", 20)]
