"""Running an experiment, and keeping its result: data as JSON, the figure drawn from that data alone."""

import json
import os
import platform
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol, cast

from heedful import files
from heedful.config import Table
from heedful.errors import HeedfulError
from heedful.lab import EXPERIMENTS

Rows = list[list[str]]  # the first row is the head
Running = Generator[str, None, Table]


@dataclass(frozen=True)
class Verdict:
    """What the data say to the question, computed from them; `shown` is whether they bear the paper's claim out."""

    shown: bool
    text: str

    def __str__(self) -> str:
        return self.text if self.shown else f"Not shown here: {self.text}"


class Experiment(Protocol):
    """What each module of the lab has."""

    QUESTION: str
    PAPER: str
    MINUTES: tuple[float, float]
    NEEDS: tuple[str, ...]
    QUICK: Any
    Settings: Callable[[], Any]

    def run(self, settings: Any) -> Running:
        """Yield what is being done; return the result."""
        ...

    def verdict(self, data: Table) -> Verdict:
        """Say what the data say."""
        ...

    def table(self, data: Table) -> Rows:
        """Return the data as rows of text, the head first."""
        ...

    def draw(self, data: Table, figure: Any) -> None:
        """Draw the data into a figure of matplotlib."""
        ...


def mean_and_range(values: Sequence[float], form: str = ".1f") -> str:
    """Return "34.1 (33.0 to 35.2)", the mean of the repeats and what they lie between; of one alone its value."""
    between = f" ({min(values):{form}} to {max(values):{form}})" if len(values) > 1 else ""
    return f"{fmean(values):{form}}{between}"


def ahead(ours: Sequence[float], theirs: Sequence[float], margin: float) -> bool:
    """Whether all of our repeats are above all of theirs; by more than `margin` where one is alone: seeds differ."""
    return min(ours) - max(theirs) > (margin if 1 in (len(ours), len(theirs)) else 0.0)


def find(name: str) -> Experiment:
    """Return the experiment's module.

    Raises:
        HeedfulError: there is none of this name.
    """
    if name not in EXPERIMENTS:
        raise HeedfulError(f"no experiment '{name}'; there are {', '.join(EXPERIMENTS)}, and all")
    return cast(Experiment, import_module(EXPERIMENTS[name]))


def run_and_keep(name: str, quick: bool, folder: Path) -> Iterator[str]:
    """Run an experiment unless its result is in `folder` already, yielding progress; keep it as NAME.json.

    Raises:
        HeedfulError: there is none of this name, nothing to draw its figure with, or not the text that it reads, or a
            quick run would take the place of a whole one: before the work, not after it.
    """
    experiment = find(name)
    require_matplotlib()
    if is_kept(name, quick, folder):
        yield f"already in {folder}, with the same settings"
        return
    settings, read = _settings(experiment, quick), [*experiment.NEEDS, *_also(experiment)]
    from heedful.lab import corpora  # knows how to train, and with that torch

    corpora.require(experiment.NEEDS)
    folder.mkdir(parents=True, exist_ok=True)
    files.check_writable(folder)
    started = time.monotonic()
    data = yield from experiment.run(settings)
    result = {
        "name": name,
        "settings": _plain(settings),
        "edition": edition(experiment),
        "quick": quick,
        "seconds": round(time.monotonic() - started, 1),
        "where": _where(),
        "read": read,
        "command": f"heedful lab run {name}{' --quick' if quick else ''}{' --data FOLDER' if read else ''}",
        "data": data,
    }
    files.write_text(folder / f"{name}.json", json.dumps(result, indent=1))


def is_kept(name: str, quick: bool, folder: Path) -> bool:
    """Whether `folder` has the result of this experiment, of the settings, code and texts of now.

    Raises:
        HeedfulError: there is none of this name, a quick run would take the place of a whole one, or the file is none
            of ours.
    """
    experiment, path = find(name), folder / f"{name}.json"
    if not path.is_file():
        return False
    kept = _read_result(path)
    needed = [*experiment.NEEDS]
    now = (_plain(_settings(experiment, quick)), edition(experiment), [*needed, *_also(experiment)])
    if (kept.get("settings"), kept.get("edition", 1), kept.get("read", needed)) == now:
        return True
    if quick and not kept.get("quick", True):
        raise HeedfulError(f"{path}: the result of a whole run; give another --out for a quick one")
    return False


def edition(experiment: Experiment) -> int:
    """Return how often an experiment's code has changed so that the same settings come to other results, and once."""
    return 1 + len(_revisions(experiment))


def revisions_since(result: Table) -> list[str]:
    """Return what has changed in the experiment's code since this result, so that it would come to another one."""
    return _revisions(find(result["name"]))[result.get("edition", 1) - 1 :]


def _revisions(experiment: Experiment) -> list[str]:
    return [*getattr(experiment, "REVISIONS", ())]


def _read_result(path: Path) -> Table:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        kept = None
    if not isinstance(kept, dict) or not {"name", "settings", "data"} <= kept.keys():
        raise HeedfulError(f"{path}: no result of an experiment, which would replace it; give another folder")
    return kept


def _settings(experiment: Experiment, quick: bool) -> Any:
    return experiment.QUICK if quick else experiment.Settings()


def _plain(settings: Any) -> Table:
    """Return settings as JSON has them, lists for tuples."""
    return cast(Table, json.loads(json.dumps(asdict(settings))))


def _where() -> str:
    """Return on what this runs, for figures that depend on it: seconds do, and rounding."""
    import torch

    from heedful import __version__

    machine = f"{platform.machine()}, {os.cpu_count()} cores, threads: {torch.get_num_threads()}"
    return f"{machine}, torch {torch.__version__}, heedful {__version__}, {datetime.now(UTC).date()}"


def _also(experiment: Experiment) -> list[str]:
    """Return what an experiment reads if it is there, and does without otherwise."""
    return cast(list[str], getattr(experiment, "also", list)())


def require_matplotlib() -> None:
    """Refuse to go on without what draws figures.

    Raises:
        HeedfulError: with what to install.
    """
    if find_spec("matplotlib") is None:
        raise HeedfulError("figures need matplotlib: pip install 'heedful[plots]'")


def draw_figure(name: str, data: Table, folder: Path) -> None:
    """Draw the figure of a result as NAME.svg and NAME.png.

    Raises:
        HeedfulError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    look = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": name}
    with rc_context(look):
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        find(name).draw(data, figure)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        figure.savefig(folder / f"{name}.png", dpi=150)


def read_results(folder: Path) -> list[Table]:
    """Return the results kept in `folder`, in the paper's order.

    Raises:
        HeedfulError: there is none, or a file of such a name is none of ours.
    """
    paths = [folder / f"{name}.json" for name in EXPERIMENTS]
    found = [_read_result(path) for path in paths if path.is_file()]
    if not found:
        raise HeedfulError(f"{folder}: no experiment has been run into it; `heedful lab run all --quick` does")
    return found
