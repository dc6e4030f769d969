"""Read pairs of text from the files that people have, line by line: two aligned files, TSV, CSV, JSONL; gzip, zstd."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import IO, Literal, NamedTuple, cast

from heedful.errors import HeedfulError

NO_TEXT = "\0"  # a line of CSV that is not UTF-8
UTF_16 = b"\xff\xfe"  # how such a text begins, whose Latin letters are valid UTF-8, a NUL beside each
IN_PART = "`iconv -c -f utf-8 -t utf-8 OLD > NEW` (in training also --data.undecodable drop)"
COMPRESSION = {".gz": "gzip", ".zst": "zstd"}


class Corpus(NamedTuple):
    """One parallel corpus: two aligned files, or one file of pairs (`target` is None)."""

    source: Path
    target: Path | None


Triple = tuple[int, str, str]  # number of the corpus, source, target


class Pair(NamedTuple):
    """A source and a target; None marks a side that is not UTF-8, or has a NUL character."""

    source: str | None
    target: str | None


def read_pairs(corpus: Corpus, undecodable: Literal["refuse", "drop"] = "refuse") -> Iterator[Pair]:
    """Yield the pairs of a corpus in order, whitespace at the ends of each side removed.

    Raises:
        HeedfulError: unequal line counts (with both), a malformed row, or, where refused, a line that is not UTF-8;
            each with file, line and remedy.
    """
    if corpus.target is None:
        yield from _pairs_of_one_file(corpus.source, undecodable)
        return
    sources, targets = read_lines(corpus.source, undecodable), read_lines(corpus.target, undecodable)
    lines = 0
    for source in sources:
        lines += 1
        target = next(targets, _END)
        if target is _END:
            count = lines + sum(1 for _ in sources)
            raise _unequal(corpus, count, lines - 1)
        yield Pair(source, target)
    if next(targets, _END) is not _END:
        raise _unequal(corpus, lines, lines + 1 + sum(1 for _ in targets))


def read_whole_pairs(corpus: Corpus, undecodable: Literal["refuse", "drop"] = "refuse") -> Iterator[tuple[str, str]]:
    """Yield the pairs of a corpus that have text on both sides; raises what `read_pairs` raises."""
    return ((pair.source, pair.target) for pair in read_pairs(corpus, undecodable) if pair.source and pair.target)


def read_lines(path: Path, undecodable: Literal["refuse", "drop"] = "refuse") -> Iterator[str | None]:
    r"""Yield the lines of a text file, plain, gzip or zstd, without whitespace at their ends; only \n ends a line.

    Raises:
        HeedfulError: the file cannot be read, or has a line that is not UTF-8 and `undecodable` is "refuse".
    """
    for line in _raw_lines(path, undecodable):
        yield None if line is None else line.strip()


def _raw_lines(path: Path, undecodable: Literal["refuse", "drop"]) -> Iterator[str | None]:
    number = 0
    try:
        with open_bytes(path) as file:
            for line in decoded_lines(file, str(path), undecodable):
                number += 1
                yield line
    except (OSError, ValueError) as error:  # ValueError: how Arrow says that what was compressed is damaged
        raise HeedfulError(
            f"{path}: cannot be read after line {number} ({error}); copy it anew, or look at its permissions"
        ) from None


def decoded_lines(
    file: Iterable[bytes], name: str, undecodable: Literal["refuse", "drop"] = "refuse"
) -> Iterator[str | None]:
    r"""Yield the lines of a stream of bytes, their ends as they are, without a byte order mark; only \n ends a line.

    Raises:
        HeedfulError: a line is not UTF-8 and `undecodable` is "refuse"; else it is None.
    """
    for number, line in enumerate(file, start=1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            told = how_to_convert(line)
            few = f", or, where little is broken, {IN_PART}" if "cp1252" in told else ""
            wrong = f"not UTF-8 (byte {error.start + 1} of the line); {told}{few}"
        else:
            if "\0" not in text:
                yield text.removeprefix("\ufeff") if number == 1 else text
                continue
            wrong = f"has NUL characters; {without_nul(text)}"
        if undecodable == "refuse":
            raise HeedfulError(f"{name}:{number}: {wrong}")
        yield None


def without_nul(text: str) -> str:
    """Return what to do with a text that has NUL characters."""
    if 3 * text.count("\0") > len(text):  # beside every Latin letter one, as in UTF-16
        return how_to_convert(UTF_16)
    return "remove them: `tr -d '\\0' < OLD > NEW` (in training also --data.undecodable drop)"


def how_to_convert(content: bytes) -> str:
    """Return what to do with a text that is not UTF-8, by how it begins."""
    for start, suffix in {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}.items():
        if content.startswith(start):
            return f"it is compressed: let its name end in {suffix}"
    if content.startswith(b"PK\x03\x04"):
        return "unpack it, or save a spreadsheet as CSV UTF-8"
    if content.startswith((b"\xfd7zXZ", b"BZh")):
        return "it is compressed: unpack it"
    code = "utf-16" if content.startswith((UTF_16, UTF_16[::-1])) else "cp1252"
    return f'save it as UTF-8 (a spreadsheet: as "CSV UTF-8"), or `iconv -f {code} -t utf-8 OLD > NEW`'


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading bytes, decompressing by its suffix (.gz, .zst).

    Raises:
        HeedfulError: there is no such file.
    """
    if not path.exists() or path.is_dir():
        raise HeedfulError(f"{path}: {'a folder, not a' if path.is_dir() else 'no such'} file; check the path")
    compression = COMPRESSION.get(path.suffix.lower())
    if compression is None:
        return path.open("rb", buffering=1 << 20)
    import pyarrow as pa  # takes as long as all else that plain text needs

    stream = pa.input_stream(path.open("rb"), compression=compression)  # whose name may be none that Arrow can write
    return cast(IO[bytes], io.BufferedReader(stream, 1 << 20))


def _pairs_of_one_file(path: Path, undecodable: Literal["refuse", "drop"]) -> Iterator[Pair]:
    suffixes = {suffix.lower() for suffix in path.suffixes}
    if ".csv" in suffixes:
        yield from _csv_pairs(path, (NO_TEXT if line is None else line for line in _raw_lines(path, undecodable)))
        return
    is_json = ".jsonl" in suffixes
    for number, line in enumerate(_raw_lines(path, undecodable), start=1):
        if line is None:
            yield Pair(None, None)
        elif not line.strip():
            yield Pair("", "")
        elif is_json:
            pair = _json_pair(line, f"{path}:{number}")
            if not any("\0" in (text or "") for text in pair):
                yield pair
            elif undecodable == "drop":
                yield Pair(None, None)
            else:
                remedy = "remove it, or in training --data.undecodable drop"
                raise HeedfulError(f"{path}:{number}: has a NUL character (\\u0000); {remedy}")
        else:
            columns = line.split("\t")
            if len(columns) < 2:
                raise HeedfulError(
                    f"{path}:{number}: no tab in this row; a row is source, tab, target (CSV and JSONL are known by "
                    f".csv and .jsonl); of two plain files name both, --source and --target or --reference"
                )
            yield Pair(columns[0].strip(), columns[1].strip())


def _json_pair(line: str, where: str) -> Pair:
    try:
        row = json.loads(line)
        source, target = row["source"], row["target"]
        json.dumps([source, target], ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, KeyError, TypeError):
        raise HeedfulError(f'{where}: expected an object such as {{"source": "…", "target": "…"}}') from None
    if not (isinstance(source, str) and isinstance(target, str)):
        raise HeedfulError(f"{where}: source and target must both be texts")
    return Pair(_one_line(source), _one_line(target))


def _csv_pairs(path: Path, lines: Iterator[str]) -> Iterator[Pair]:
    """Yield the first two columns as spreadsheets write them, quoted where need be; between them , or ; or a tab."""
    head, number = list(islice(lines, 20)), 0
    try:
        rows = csv.reader(chain(head, lines), delimiter=_delimiter(head), strict=True)
        for row in rows:
            number = rows.line_num
            if any(NO_TEXT in field for field in row):
                yield Pair(None, None)
            elif len(row) == 1 and row[0].strip():
                raise HeedfulError(f"{path}:{number}: one column in this row; a row is source, comma, target")
            else:
                yield Pair(*map(_one_line, row[:2])) if len(row) > 1 else Pair("", "")
    except csv.Error as error:
        raise HeedfulError(f"{path}:{number + 1}: no comma-separated values ({error}); see its quotes") from None


def _delimiter(head: list[str]) -> str:
    """Return what stands between the columns: in every row, the same number of times, and with no space after it.

    That is how it differs from a sign of the text. The last row of a head may go on after it, and has no say.
    """
    found: list[tuple[bool, bool, str]] = []
    for mark in ("\t", ";", ","):
        rows: list[list[str]] = []
        with suppress(csv.Error):  # of the last row; which the whole reading names by its number
            rows.extend(csv.reader(head, delimiter=mark, strict=True))
            rows = rows[:-1] or rows
        columns = {len(row) for row in rows if row and NO_TEXT not in row}
        if columns and min(columns) > 1:
            spaced = any(field.startswith(" ") for row in rows for field in row[1:])
            found.append((spaced, len(columns) > 1, mark))
    return min(found, key=lambda entry: entry[:2])[2] if found else ","


def _one_line(text: str) -> str:
    """A row is one line of text on either side: line breaks inside it become spaces."""
    return " ".join(part.strip(" \t") for part in re.split(r"[\r\n]+", text)).strip()


def _unequal(corpus: Corpus, sources: int, targets: int) -> HeedfulError:
    return HeedfulError(
        f"{corpus.source} has {sources:,} lines and {corpus.target} has {targets:,}; "
        f"line n of one must belong to line n of the other: mend the files"
    )


_END = cast(str | None, object())
