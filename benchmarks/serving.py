"""Load on `heedful serve`: many clients at once, every answer compared with the one that its text has alone.

    python benchmarks/serving.py [BUNDLE] [--input test_2016_flickr.en] [--clients 64] [--seconds 60] [--rounds 3]
    python benchmarks/serving.py [BUNDLE] [--input test_2016_flickr.en] --memory 20000

Each client keeps one connection open and sends its next line as soon as it has its answer. The server is a process of
its own, started anew for each round: once as it is, once with `--batch 1`, in turn. Server and clients share the
machine, as they do on a laptop. With --memory, the server's resident memory after a tenth of so many requests and after
all of them.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

from heedful.translator import Translator

TEXT = Path(__file__).resolve().parents[2] / "shared" / "data" / "multi30k-en-de" / "test_2016_flickr.en"


@dataclass
class Load:
    """What came of some requests: seconds of each, and what went wrong."""

    seconds: list[float] = field(default_factory=list)
    errors: int = 0
    wrong: int = 0

    def told(self, elapsed: float) -> str:
        """Return the line that is printed."""
        cuts = statistics.quantiles(self.seconds, n=100)
        waits = "  ".join(f"p{share} {1000 * cuts[share - 1]:4.0f} ms" for share in (50, 95, 99))
        outcome = f"{len(self.seconds):,} answered, {self.errors} errors, {self.wrong} wrong"
        return f"{len(self.seconds) / elapsed:7.1f} requests/s  {waits}  {outcome}"


@contextmanager
def serving(bundle: str, *flags: str) -> Iterator[tuple[str, int]]:
    """Start a server of its own; give its address and its process, and end it."""
    command = [sys.executable, "-m", "heedful", "serve", bundle, "--port", "0", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        said = []
        for line in server.stderr:
            said.append(line)
            if address := next((word for word in line.split() if word.startswith("http")), ""):
                break
        else:
            raise SystemExit(f"the server did not start: {''.join(said).strip()}")
        try:
            yield address, server.pid
        finally:
            server.terminate()


async def client(address: str, turns: Iterator[int], lines: list[str], expected: list[str], load: Load) -> None:
    """Send one line after another until there are no more turns."""
    place = urlsplit(address)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    for turn in turns:
        chosen = turn % len(lines)
        body = json.dumps({"q": lines[chosen], "source": "en", "target": "de"}).encode()
        head = f"POST /translate HTTP/1.1\r\nhost: {place.netloc}\r\ncontent-type: application/json\r\n"
        began = time.perf_counter()
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        status = int(answer.split(b" ", 2)[1])
        length = next(int(row[15:]) for row in answer.lower().split(b"\r\n") if row.startswith(b"content-length:"))
        found = json.loads(await reader.readexactly(length))
        load.seconds.append(time.perf_counter() - began)
        if status != 200:
            load.errors += 1
        elif found["translatedText"] != expected[chosen]:
            load.wrong += 1
    writer.close()


def until(end: float, numbers: Iterator[int]) -> Iterator[int]:
    """Pass numbers on until the clock says `end`."""
    while time.monotonic() < end:
        yield next(numbers)


async def run(address: str, turns: list[Iterator[int]], lines: list[str], expected: list[str]) -> tuple[Load, float]:
    """Let all clients work at once; return what came of it, and the seconds it took."""
    load, began = Load(), time.monotonic()
    await asyncio.gather(*(client(address, own, lines, expected, load) for own in turns))
    return load, time.monotonic() - began


def throughput(options: argparse.Namespace, lines: list[str], expected: list[str]) -> None:
    """Print both kinds of rounds, in turn, and the ratio of their medians."""
    speeds: dict[str, list[float]] = {"64": [], "1": []}
    for number in range(options.rounds):
        for batch, found in speeds.items():
            with serving(options.bundle, "--batch", batch, "--weights", options.weights) as (address, _):
                warm = [iter(range(20)) for _ in range(4)]
                asyncio.run(run(address, warm, lines, expected))
                numbers, end = count(), time.monotonic() + options.seconds
                load, elapsed = asyncio.run(
                    run(address, [until(end, numbers) for _ in range(options.clients)], lines, expected)
                )
            found.append(len(load.seconds) / elapsed)
            print(f"round {number + 1}, batch {batch:>2s}  {load.told(elapsed)}", flush=True)
    ratio = statistics.median(speeds["64"]) / statistics.median(speeds["1"])
    print(f"{options.clients} clients: batched / one at a time {ratio:.2f}")


def memory(options: argparse.Namespace, lines: list[str], expected: list[str]) -> None:
    """Print the server's memory after a tenth of the requests, and after all."""
    with serving(options.bundle, "--weights", options.weights) as (address, process):
        sizes = []
        for many in (options.memory // 10, options.memory - options.memory // 10):
            numbers = iter(range(many))
            load, elapsed = asyncio.run(run(address, [numbers] * options.clients, lines, expected))
            status = Path(f"/proc/{process}/status").read_text().splitlines()
            sizes.append(next(int(row.split()[1]) / 1024 for row in status if row.startswith("VmRSS")))
            print(load.told(elapsed), f"  {sizes[-1]:,.1f} MB", flush=True)
    print(
        f"memory: {100 * (sizes[1] / sizes[0] - 1):+.1f} % from {options.memory // 10:,} to {options.memory:,} requests"
    )


def main() -> None:
    """Translate every line alone, then put load on servers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", nargs="?", default="en-de", help="a model folder, or a model in the box")
    parser.add_argument("--input", type=Path, default=TEXT)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, default=0, help="requests for the figure of memory, instead of rounds")
    parser.add_argument("--weights", default="float32")
    options = parser.parse_args()
    if not options.input.is_file():
        parser.error(f"{options.input}: not there; give --input FILE (docs/data.md tells where its text comes from)")
    lines = options.input.read_text(encoding="utf-8").splitlines()
    translator = Translator.load(options.bundle, weights=options.weights)
    expected = [translator.translate_document(line) for line in lines]
    print(f"{os.cpu_count()} cores, {len(lines):,} lines, {options.clients} clients")
    (memory if options.memory else throughput)(options, lines, expected)


if __name__ == "__main__":
    main()
