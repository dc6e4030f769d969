"""`heedful lab list`, `heedful lab run` and `heedful lab report`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.markup import escape

from heedful.cli.settings import Threads
from heedful.cli.terminal import is_live, terminal
from heedful.lab import EXPERIMENTS
from heedful.lab.experiment import find, is_kept, read_results, run_and_keep
from heedful.lab.report import check_free, write_report

Folder = Annotated[Path, Parameter(name="--out", help="Folder of the results")]


def list() -> None:
    """List the experiments: the question, where the paper raises it, and about how many minutes it takes."""
    console = terminal()
    for name in EXPERIMENTS:
        experiment = find(name)
        quick, full = experiment.MINUTES
        console.print(f"[bold]{name}[/]  [dim]{experiment.PAPER}; {quick:g} minutes quick, {full:g} full[/]")
        console.print(f"  {experiment.QUESTION}", markup=False)
        if experiment.NEEDS:
            console.print(f"  reads {', '.join(experiment.NEEDS)} (--data)", style="dim")


def run(
    name: Annotated[str, Parameter(help="The experiment, or all")],
    /,
    *,
    quick: Annotated[bool, Parameter(help="Smaller and shorter: minutes in all", negative=())] = False,
    data: Annotated[Path | None, Parameter(help="Folder of corpora: multi30k-en-de, tatoeba-en-de, treebank")] = None,
    out: Folder = Path("lab"),
    threads: Threads = 0,
) -> None:
    """Run an experiment, or all, and write the report. What is there already, of the same settings and code, stays.

    Stopped at any time, the same command goes on with the experiments that are not there yet. Some read real text from
    the folder of --data, or of the environment's HEEDFUL_DATA; all leaves them out if that text is not there.
    """
    from heedful.lab import corpora

    console = terminal(lasting=True)
    check_free(out)
    if data:
        corpora.look_in(data)
    names = [*EXPERIMENTS] if name == "all" else [name]
    if name == "all":
        absent = {each: corpora.missing(find(each).NEEDS) for each in names}
        names = [each for each in names if not absent[each]]
        for each, texts in absent.items():
            if texts:
                console.print(f"{each} left out: no {' and no '.join(texts)}; give --data FOLDER")
    chosen = [find(each) for each in names]
    if threads:
        import torch

        torch.set_num_threads(threads)
    for each in names:  # what is to be refused, before hours of the others
        is_kept(each, quick, out)
    minutes = sum(experiment.MINUTES[0 if quick else 1] for experiment in chosen)
    console.print(f"about {minutes:g} minutes", style="dim")
    for each, experiment in zip(names, chosen, strict=True):
        console.print(f"\n[bold]{each}[/] {experiment.QUESTION}")
        with console.status("") as status:
            for progress in run_and_keep(each, quick, out):
                status.update(escape(progress))
                if not is_live(console):
                    console.print(f"  {escape(progress)}", style="dim")
        [result] = [result for result in read_results(out) if result["name"] == each]
        terminal().print(str(experiment.verdict(result["data"])), markup=False)
    console.print(f"\nreport: {escape(str(write_report(out)))}", style="dim", soft_wrap=True)


def report(folder: Annotated[Path, Parameter(help="Folder of the results")] = Path("lab"), /) -> None:
    """Write report.html from the results in a folder: figures, tables and verdicts are made anew from the data."""
    print(write_report(folder))
