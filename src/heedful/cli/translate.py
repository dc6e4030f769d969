"""`heedful translate`."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import tee
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from heedful.cli.model import load, say_if_slow, search_of
from heedful.cli.output import writing
from heedful.cli.settings import POSITIVE, Bundle, Device, Reverse, SearchFlags, Threads, Weights, given
from heedful.cli.standard_input import standard_input
from heedful.cli.terminal import STANDARD_OUTPUT, terminal
from heedful.errors import HeedfulError
from heedful.text.document import repeats
from heedful.text.pairs import how_to_convert, open_bytes, read_lines, without_nul
from heedful.translator import WINDOW, Output

LONG = 5_000  # characters of a line: no sentence has so many
A_LINE_EACH = "give as many lines as the text has, an empty one where an output may begin as it likes"


def translate(
    bundle: Bundle,
    /,
    *,
    input: Annotated[
        Path | None, Parameter(name=["--input", "-i"], help="Text to translate (default: standard input)")
    ] = None,
    output: Annotated[
        Path | None, Parameter(name=["--output", "-o"], help="Where to write (default: standard output)")
    ] = None,
    prefix: Annotated[Path | None, Parameter(help="File whose line n is what output n must begin with")] = None,
    jsonl: Annotated[
        bool, Parameter(help="Write a JSON object a line: text, score, alignment, repeats, n-best", negative=())
    ] = False,
    document: Annotated[
        bool, Parameter(help="Translate real text: split into sentences, paragraphs kept", negative=())
    ] = False,
    markup: Annotated[bool, Parameter(help="With --document: the text is HTML; tags are kept", negative=())] = False,
    batch: Annotated[
        int,
        Parameter(help="Lines translated together; the result stays the same, but for rounding", validator=POSITIVE),
    ] = 64,
    window: Annotated[
        int | None,
        Parameter(
            help="Lines read before the first is answered, and lost at most where it is stopped (4096, typed at a "
            "terminal 1); 1 if a program waits for each",
            validator=POSITIVE,
        ),
    ] = None,
    reverse: Reverse = None,
    device: Device = "cpu",
    threads: Threads = 0,
    weights: Weights = "float32",
    search: Annotated[SearchFlags | None, Parameter(name="*")] = None,
) -> None:
    """Translate lines of text: one line out for each line in; an empty line stays empty.

    With --n-best, each output is a line of its own: the number of the input line, the score, the text, tab-separated.
    Word alignments in --jsonl are pairs of source and target word numbers, from 0; "repeats" tells whether an output
    says the same words over and over. With --document a line may have many sentences, though none may go on in the
    next, or behind a tab: paragraphs, bullets, {placeholders}, addresses and `code` are kept.
    """
    output = None if output in STANDARD_OUTPUT else output  # which may be a file that others write to, too
    translator = load(bundle, device, threads, weights, reverse)
    say_if_slow(translator)
    config = search_of(translator, given(search))
    if document or markup:
        choosing = config.sample and reverse is not None
        if jsonl or prefix or window or (given(search).get("n_best", 1) > 1 and not choosing):
            raise HeedfulError(
                "--document reads and gives one text: leave --jsonl, --prefix, --n-best and --window out"
            )
        if not translator.languages:
            note = "the model says no languages: sentences are found by English rules; see `heedful configure --help`"
            print(f"heedful: {note}", file=sys.stderr)
        text = _read_text(input)
        with writing(output) as file:
            file.write(translator.translate_document(text, config, markup=markup, batch=batch))
        return
    lines = _with_a_word_of_long_ones(read_lines(input) if input else standard_input())
    beginnings = read_lines(prefix) if prefix else iter(())
    with writing(output) as file, _progress(input, output) as advance:
        read, sources = tee(line or "" for line in lines)
        results = translator.translate(
            read,
            config,
            batch=batch,
            prefixes=_one_each(beginnings, prefix) if prefix else None,
            align=jsonl,
            window=window or (1 if input is None and sys.stdin.isatty() else WINDOW),
            progress=advance,
        )
        repeated = 0
        for number, (outputs, source) in enumerate(zip(results, sources, strict=False), start=1):
            again = [repeats(one.text) and not repeats(source) for one in outputs]
            repeated += again[0]
            for line in _lines(number, outputs, again, jsonl, config.n_best):
                file.write(line + "\n")
            if input is None or window:
                file.flush()
        if next(beginnings, None) is not None:
            raise HeedfulError(f"{prefix}: goes on where the text has ended; {A_LINE_EACH}")
    if repeated:  # a search that has lost its way: the commonest nonsense, and the easiest to see
        what = "output says" if repeated == 1 else "outputs say"
        advice = "" if config.no_repeat_ngram else "; --no-repeat-ngram 3 forbids it"
        print(f"heedful: {repeated:,} {what} the same words over and over{advice}", file=sys.stderr)


def _with_a_word_of_long_ones(lines: Iterable[str | None]) -> Iterator[str | None]:
    """Yield the lines; of the first that is no sentence say so: its time grows with the square of its length."""
    told = False
    for number, line in enumerate(lines, start=1):
        if len(line or "") > LONG and not told:
            told = True
            note = f"line {number:,} has {len(line or ''):,} characters, and is translated as one sentence"
            print(f"heedful: {note}; --document finds the sentences in a text", file=sys.stderr)
        yield line


def _one_each(beginnings: Iterator[str | None], path: Path) -> Iterator[str]:
    """Yield what each output begins with.

    Raises:
        HeedfulError: a further one is asked for than the file at `path` has.
    """
    number = 0
    for number, line in enumerate(beginnings, start=1):  # noqa: B007
        yield line or ""
    raise HeedfulError(f"{path}: ends after line {number:,} where the text goes on; {A_LINE_EACH}")


def _read_text(path: Path | None) -> str:
    """Return all of a file, or of standard input, its line ends as they are.

    Raises:
        HeedfulError: there is no such file, it is damaged, or it is not UTF-8.
    """
    try:
        with open_bytes(path) if path else nullcontext(sys.stdin.buffer) as file:
            content = file.read()
    except OSError as error:
        raise HeedfulError(
            f"{path or 'standard input'}: cannot be read ({error}); copy it anew, or look at its permissions"
        ) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise HeedfulError(f"{path or 'standard input'}: not UTF-8; {how_to_convert(content)}") from None
    if "\0" in text:
        raise HeedfulError(f"{path or 'standard input'}: has NUL characters; {without_nul(text)}")
    return text


def _lines(number: int, outputs: list[Output], again: list[bool], jsonl: bool, n_best: int) -> Iterable[str]:
    if jsonl:
        found = [
            {
                "text": output.text,
                "score": output.score,
                "log_probability": output.log_probability,
                "alignment": output.alignment,
                "repeats": repeated,
            }
            for output, repeated in zip(outputs, again, strict=True)
        ]
        rest = {"n_best": found} if n_best > 1 else {}
        yield json.dumps({"line": number, **found[0], **rest}, ensure_ascii=False)
    elif n_best > 1:
        yield from (f"{number}\t{output.score:.6f}\t{output.text}" for output in outputs)
    else:
        yield outputs[0].text


@contextmanager
def _progress(path: Path | None, output: Path | None) -> Iterator[Any]:
    """A count of lines on standard error, if it is a terminal and the text is a file: a pipe can be read but once.

    Not where the translations are written to the same terminal: each would spoil the other.
    """
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    console = terminal(stderr=True)
    mixed = output is None and sys.stdout.isatty()
    if mixed or path is None or not path.is_file() or not console.is_terminal:
        yield lambda done: None
        return
    total = sum(1 for _ in read_lines(path))
    columns = (SpinnerColumn(), TextColumn("lines"), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("lines", total=total)
        yield lambda done: progress.advance(task, done)
