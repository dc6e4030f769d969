"""What the documents say is so."""

import ast
import doctest
import re
import runpy
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from heedful.cli.app import make_app
from heedful.config import merge, read_toml
from heedful.recipe import PRESETS, build

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def names_in(path):
    """Every class, function, method and annotated or assigned name of a module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_every_code_anchor_to_a_name_in_it(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, name = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if name and target.suffix == ".py":
            assert name in names_in(target), link


def test_the_paper_map_names_each_equation_and_section_of_the_model():
    text = (ROOT / "docs" / "paper-map.md").read_text(encoding="utf-8")
    wanted = ["equation 1", "equation 2", "equation 3", "3.1", "3.2.1", "3.2.2", "3.2.3", "3.3", "3.4", "3.5"]
    rows = {
        part for row in re.findall(r"^\| ([^|]+) \|", text, re.M) for part in re.split(r"[,;] ?| and ", row.strip())
    }
    for section in [*wanted, "5.1", "5.3", "5.4", "6.1"]:
        assert section in rows


def test_the_tree_of_the_readme_is_the_tree_on_disk():
    tree = re.search(r"```tree\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)[1]
    listed, folders = set(), []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        for name in line.split("  #")[0].split():
            folders[depth:] = [name.rstrip("/")] if name.endswith("/") else []
            if not name.endswith("/"):
                listed.add("/".join([*folders, name]))
    package = ROOT / "src" / "heedful"
    on_disk = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.*")
        if path.suffix in (".py", ".cpp", ".h") and path.name not in ("__init__.py", "__main__.py")
    }
    assert {path.removeprefix("src/heedful/") for path in listed if path.startswith("src/")} == on_disk


@pytest.mark.parametrize("name", ["en-de", "de-en"])
def test_what_a_model_card_shows_is_in_the_list_of_what_the_model_says(name):
    cards = ROOT / "docs" / "model-cards"
    card, kept = ((cards / file).read_text(encoding="utf-8") for file in (f"{name}.md", f"{name}-inputs.md"))
    rows = re.findall(r"^\| .* \| .* \|$", card, re.M)
    examples = [row for row in rows if row != "| input | output |"]
    assert len(examples) == 20
    assert set(examples) <= set(kept.splitlines())


def test_the_reference_is_what_the_program_says():
    made = runpy.run_path(str(ROOT / "docs" / "reference.py"))["page"]()
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == made, "run `make docs`"


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid_and_tells_what_it_reached(path):
    recipe = build(read_toml(path), where=str(path))
    assert recipe.training.steps > 0
    assert re.search(r"^# .*(BLEU|error rate)", path.read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize(
    ("page", "least"),
    [
        *(("README.md", 10), ("docs/small-data.md", 8), ("docs/serving.md", 2), ("docs/looking-inside.md", 1)),
        ("docs/many-processes.md", 1),
    ],
)
def test_the_program_understands_the_commands_of_a_page(page, least):
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    begun = r"^ *(?:echo .* \| |torchrun .* --module )?heedful "
    commands = re.findall(begun + r"(.*?)(?: < \S+)?(?: +#.*)?$", text, re.M)
    assert len(commands) >= least
    for command in commands:
        make_app().parse_args(shlex.split(command), exit_on_error=False, print_error=False)


def test_doctests_of_the_package_hold():
    sources = [path for path in (ROOT / "src").rglob("*.py") if ">>> " in path.read_text(encoding="utf-8")]
    names = [".".join(path.relative_to(ROOT / "src").with_suffix("").parts) for path in sources]
    results = [doctest.testmod(import_module(name)) for name in names]
    assert sum(result.attempted for result in results) > 0
    assert not any(result.failed for result in results)


MUTATIONS = runpy.run_path(str(ROOT / "tests" / "mutations.py"))["MUTATIONS"]


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_line_that_is_to_be_broken_is_still_there(name):
    file, line, _ = MUTATIONS[name]
    assert line in (ROOT / "src" / "heedful" / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("number", range(5))
def test_the_examples_of_the_library_run_as_they_stand(number, tmp_path, monkeypatch):
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "library.md").read_text(encoding="utf-8"), re.S)
    assert len(examples) == 5
    monkeypatch.chdir(tmp_path)
    for language in ("en", "de"):
        (tmp_path / f"my.{language}").write_text("".join(f"{n} in {language}\n" for n in range(300)))
    small = {"model": {"d_model": 16, "d_ff": 16}, "vocabulary": {"size": 300}, "training": {"steps": 2}}
    monkeypatch.setitem(PRESETS, "fast", merge(PRESETS["fast"], small))
    exec(examples[0] + (examples[number] if number else ""), {})
