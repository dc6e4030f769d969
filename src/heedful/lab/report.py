"""All experiments run so far on one page: one file, no network, light and dark, fit to print."""

from html import escape
from pathlib import Path

from heedful import files
from heedful.config import Table
from heedful.errors import HeedfulError
from heedful.lab.experiment import draw_figure, find, read_results, revisions_since

STYLE = """
:root { color-scheme: light dark; --paper: #fdfcfa; --ink: #1d1d1f; --quiet: #6a6a6f; --line: #dddad4;
  --accent: #0b57b0; --second: #b3470c; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #17181b; --ink: #ececea; --quiet: #9c9ca3; --line: #33353a; --accent: #7db4ff; --second: #ffab73; }
}
body { margin: 0 auto; max-width: 56rem; padding: 2rem 1rem 4rem; font: 1rem/1.55 system-ui, sans-serif;
  background: var(--paper); color: var(--ink); }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 3rem 0 .3rem; }
nav a { display: block; color: inherit; } .quiet, nav span { color: var(--quiet); font-size: .875rem; }
.verdict { border-left: 3px solid var(--accent); padding-left: .8rem; }
.verdict.not { border-color: var(--second); }
figure { margin: 1rem 0; padding: .5rem; background: white; border-radius: .4rem; overflow-x: auto; }
figure svg { display: block; width: 100%; height: auto; min-width: 36rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
td, th { text-align: left; font-weight: normal; padding: .15rem .9rem .15rem 0; vertical-align: top; }
th { color: var(--quiet); border-bottom: 1px solid var(--line); }
summary { cursor: pointer; } code { font-size: .9em; }
@media print { body { max-width: none; } section { break-inside: avoid; } }
"""
TITLE = "# The paper's claims, measured"
PAGE_TITLE = "<title>The paper's claims, measured · heedful</title>"
SUMMARY = f"""{TITLE}

Made by `heedful lab report` from the data beside it, which also draws the figures and the page."""


def check_free(folder: Path) -> None:
    """Refuse to write a report over what is somebody's own.

    Raises:
        HeedfulError: the folder's README.md or report.html is not of a report.
    """
    readme = folder / "README.md"
    if readme.is_file() and not readme.read_text(encoding="utf-8", errors="replace").startswith(TITLE):
        raise HeedfulError(f"{readme}: not of a report, which would replace it; give another folder")
    page = folder / "report.html"
    if page.is_file() and PAGE_TITLE not in page.read_text(encoding="utf-8", errors="replace"):
        raise HeedfulError(f"{page}: no report of the lab, which would replace it; give another folder")


def write_report(folder: Path) -> Path:
    """Write report.html and README.md beside the results in `folder`, and return the page; figures are drawn anew.

    Raises:
        HeedfulError: there are no results, or the folder's README.md or report.html is somebody's own.
    """
    check_free(folder)
    results = read_results(folder)
    for result in results:
        draw_figure(result["name"], result["data"], folder)
    files.write_text(folder / "README.md", "\n".join([SUMMARY, *map(_summary, results), ""]))
    contents = "\n".join(
        f'<a href="#{result["name"]}">{escape(find(result["name"]).QUESTION)} '
        f"<span>{escape(find(result['name']).PAPER)}</span></a>"
        for result in results
    )
    sections = "\n".join(_section(result, folder) for result in results)
    path = folder / "report.html"
    files.write_text(
        path,
        f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{PAGE_TITLE}
<link rel="icon" href="data:,">
<style>{STYLE}</style>
<h1>The claims of <cite>Attention Is All You Need</cite>, measured here</h1>
<p class="quiet">Verdicts, tables and figures are computed from the data of each run. A claim that the data do not bear
out is marked so.</p>
<nav>
{contents}
</nav>
{sections}
</html>
""",
    )
    return path


def _summary(result: Table) -> str:
    experiment = find(result["name"])
    head, *body = experiment.table(result["data"])
    rows = "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body))
    return f"""
## {experiment.QUESTION}

{experiment.PAPER}. `{result["command"]}`, {result["seconds"]:.0f} seconds{_where(result)}.

**{experiment.verdict(result["data"])}**

{rows}"""


def _where(result: Table) -> str:
    """Return on what it ran, which results of earlier versions do not say, and whether the code has changed since."""
    where = f" ({result['where']})" if "where" in result else ""
    changes = revisions_since(result)
    return where + (f", by earlier code: run it anew; since then {'; '.join(changes)}" if changes else "")


def _section(result: Table, folder: Path) -> str:
    name, data = result["name"], result["data"]
    experiment = find(name)
    verdict = experiment.verdict(data)
    told, *_ = (experiment.run.__doc__ or "").splitlines()
    settings = ", ".join(f"{key.replace('_', ' ')} {_shown(value)}" for key, value in result["settings"].items())
    figure = (folder / f"{name}.svg").read_text(encoding="utf-8")
    figure = figure[figure.index("<svg") :].replace('id="', f'id="{name}-').replace("url(#", f"url(#{name}-")
    figure = figure.replace('href="#', f'href="#{name}-')
    figure = figure.replace("<svg", f'<svg role="img" aria-label="{escape(experiment.QUESTION)}"', 1)
    steps = "\n".join(_numbers(step, part, data["pieces"]) for step, part in data.get("steps", {}).items())
    return f"""<section id="{name}">
<h2>{escape(experiment.QUESTION)}</h2>
<p class="quiet">{escape(experiment.PAPER)}. {escape(told)}</p>
<p class="verdict{"" if verdict.shown else " not"}">{escape(str(verdict))}</p>
<figure>{figure}</figure>
<div class="wide">{_table(experiment.table(data))}</div>
{steps}
<p class="quiet">{result["seconds"]:.0f} seconds{" (quick)" if result["quick"] else ""}{escape(_where(result))};
{escape(settings)}.
Again: <code>{escape(result["command"])}</code></p>
</section>"""


def _numbers(name: str, step: Table, pieces: list[str]) -> str:
    """Every number of a step of the worked example, folded away."""
    rows = [["", *map(str, range(len(step["numbers"][0])))]]
    rows += [[piece, *(f"{v:.3f}" for v in row)] for piece, row in zip(pieces, step["numbers"], strict=True)]
    shape = " x ".join(map(str, step["shape"]))
    summary = f'<summary>{escape(name)} <span class="quiet">{shape}</span></summary>'
    return f'<details>{summary}<div class="wide">{_table(rows)}</div></details>'


def _table(rows: list[list[str]]) -> str:
    head, *body = rows
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return f"<table><tr>{cells}</tr>\n{lines}</table>"


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
