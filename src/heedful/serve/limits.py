"""What one request, one client and the whole server may ask for, and who may ask at all."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from heedful import files
from heedful.config import setting
from heedful.errors import HeedfulError

HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class ServeConfig:
    """How to serve: where, how requests are put together, and what is too much."""

    host: str = setting("127.0.0.1", "Address to listen on; 0.0.0.0 = from everywhere")
    port: int = setting(8000, "Port to listen on; 0 = any free one", least=0, most=65535)
    batch: int = setting(64, "Sentences translated together, of all that wait; 1 = one at a time", least=1)
    wait: float = setting(5.0, "Milliseconds that a sentence waits for others when nothing is running", least=0)
    characters: int = setting(20_000, "Longest request, in characters of all its texts", least=1)
    texts: int = setting(128, "Longest list of texts in a request", least=1)
    alternatives: int = setting(8, "Most alternatives of a text", least=0)
    seconds: float = setting(60.0, "Longest that a request may take", least=0.001, most=86_400)
    queue: int = setting(4096, "Sentences that may wait, of all clients", least=1)
    share: int = setting(1024, "Sentences of one client that may wait", least=1)
    origins: tuple[str, ...] = setting(
        (), 'Origins whose pages may ask from a browser, as https://intranet.example; "*" = any'
    )
    proxies: tuple[str, ...] = setting(
        (),
        "Addresses of reverse proxies whose X-Forwarded-For is believed; one on this machine always is",
    )
    keys: Path | None = setting(
        None, "File of API keys, hashed, one a line; read again when it changes; without it none is asked for"
    )


class Keys:
    """The keys that may be used, by their hashes: those in the file now, so that one can be added or withdrawn."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._hashes, self._changed = (_read_keys(path), _changed(path)) if path else ([], 0)

    def allow(self, key: str) -> bool:
        """Return whether the key is known; the time it takes does not tell how near it was."""
        if self.path is None:
            return True
        if (changed := _changed(self.path)) != self._changed:
            try:
                self._hashes = _read_keys(self.path)
            except (HeedfulError, OSError):
                self._hashes = []  # nobody is let in by a file that is gone, closed to us, or no longer one of keys
            self._changed = changed
        digest = _digest(key)
        return sum(hmac.compare_digest(digest, known) for known in self._hashes) > 0


def new_key(path: Path) -> str:
    """Return a new key, and add its hash to a file: the key itself is nowhere kept."""
    key = secrets.token_urlsafe(24)
    known = _read_keys(path) if path.is_file() else []  # any other file is refused, and stays as it is
    files.write_text(path, "\n".join([*known, _digest(key)]) + "\n")
    return key


def _read_keys(path: Path) -> list[str]:
    if not path.is_file():
        raise HeedfulError(f"{path}: no such file; make a key with `heedful serve --new-key {path}`")
    hashes = path.read_text(encoding="utf-8", errors="replace").split()
    if not all(HASH.fullmatch(line) for line in hashes):
        raise HeedfulError(f"{path}: not a file of hashed keys; make one with `heedful serve --new-key NEW-FILE`")
    return hashes


def _changed(path: Path) -> int:
    """Return when the file was last changed, in nanoseconds; 0 if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
