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


def forget_unsaved(path: Path, state: Path | None) -> None:
    """Drop all records after those of the saved `state`, if there is one, one cut off too: they will be made again."""
    saved = step_of(state) if state else 0
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = max((number for number, line in enumerate(lines, start=1) if 0 < _step_of(line) <= saved), default=0)
    files.write_text(path, "".join(line + "\n" for line in lines[:kept]))


def _step_of(line: str) -> int:
    """Return the step of a record, 0 if it has none or was cut off."""
    try:
        return int(json.loads(line).get("step", 0))
    except ValueError:
        return 0
