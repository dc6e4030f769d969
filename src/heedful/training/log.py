"""log.jsonl: a line for each event of a run, its steps by tens."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from heedful import files
from heedful.training.loop import Step
from heedful.training.state import step_of


def write_event(log: IO[str], event: Any) -> None:
    """Write an event, a dataclass, as a line with its kind and the time; of steps every tenth and the last."""
    if isinstance(event, Step) and event.step % 10 and event.step != event.steps:
        return
    record = {"event": type(event).__name__.lower(), "time": round(time.time(), 3)} | asdict(event)
    log.write(json.dumps(record, default=str) + "\n")
    log.flush()


def forget_unsaved(path: Path, state: Path | None, *, evaluated_again: bool = False) -> None:
    """Drop all records after those of the saved `state`, if there is one, one cut off too: they will be made again.

    A state is saved before its step is evaluated. Where that is made again, what is there of it is dropped too.
    """
    saved = step_of(state) if state else 0
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = 0
    for number, (event, step) in enumerate(map(_event_and_step, lines), start=1):
        if evaluated_again and event == "evaluation" and step == saved:
            break
        if 0 < step <= saved:
            kept = number
    files.write_text(path, "".join(line + "\n" for line in lines[:kept]))


def _event_and_step(line: str) -> tuple[str, int]:
    """Return the kind and the step of a record, 0 if it has none or was cut off."""
    try:
        record = json.loads(line)
        return str(record.get("event")), int(record.get("step", 0))
    except ValueError:
        return "", 0
