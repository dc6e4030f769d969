"""Atomic writes: a reader sees the old file or the new one, never half of one, whatever is killed when.

But for one that cannot be replaced, only written: it is mounted by itself, or somebody else's in a folder like /tmp.
"""

import errno
import hashlib
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import IO

from heedful.errors import HeedfulError

if sys.platform != "win32":
    import fcntl


# what shared folders of virtual machines and some network drives say that cannot sync a folder
UNABLE = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM)
ASIDE = ".{name}.{process}.tmp"  # a file, or a folder, that is still being written


def cache_folder() -> Path:
    """Return where heedful keeps what it can make again: $HEEDFUL_CACHE, else its folder in the user's cache.

    Raises:
        HeedfulError: nothing says where, and the user has no home folder.
    """
    if wanted := os.environ.get("HEEDFUL_CACHE"):
        return Path(wanted)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "heedful"
    except RuntimeError:
        raise HeedfulError("there is no home folder; set HEEDFUL_CACHE to a folder with room") from None


def remove_unused(folder: Path, days: float, name: str = "*") -> None:
    """Remove the files of this name (or pattern) that nobody has written, or marked as used, for so many days."""
    for file in folder.glob(name):
        with suppress(OSError):  # somebody else was faster, or Windows has it open
            if not file.is_symlink() and time.time() - file.stat().st_mtime > 86_400 * days:
                file.unlink()


def mark_used(*paths: Path) -> None:
    """Let `remove_unused` keep these files, where they are ours to say so of."""
    for path in paths:
        with suppress(OSError):
            os.utime(path)


def remove_leftovers(folder: Path, *names: str) -> None:
    """Remove what a process that was killed while it wrote files of these names (or patterns) left aside in `folder`.

    Nobody may be writing such files there.
    """
    for name in names:
        for aside in folder.glob(ASIDE.format(name=name, process="*")):
            if aside.name.split(".")[-2].isdigit():
                remove(aside)


@contextmanager
def replacing(path: Path, kept: list[Path] | None = None) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it is synced and takes the place of `path`.

    On an exception nothing of the old file is touched and the new one is removed; but where `kept` is given, the work
    of hours, a new file that is not empty is kept as PATH.partial, or PATH.partial.2 and so on, and `kept` is told. A
    folder may be written in place of a file, provided that `path` does not exist yet. A link stays one: what it points
    to is replaced. A file keeps its permissions, and its owner where that may be. A pipe or a device, such as
    /dev/null, is written to as it is.

    Raises:
        IsADirectoryError: `path` is a folder that exists.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        yield path
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    # containers that share a disk may have processes of one number
    process = f"{os.getpid()}{secrets.randbelow(10**9):09}"
    aside = path.with_name(ASIDE.format(name=path.name, process=process))
    try:
        yield aside
        for file in [aside, *(aside.rglob("*") if aside.is_dir() else ())]:
            _sync(file)
        _put(aside, path, kept)
        _sync(path.parent)
    except BaseException:
        if kept is not None and aside.is_file() and aside.stat().st_size:
            kept.append(_keep(aside, path))
        raise
    finally:
        remove(aside)


def check_writable(folder: Path) -> None:
    """Refuse a folder that is there and in which no file can be made.

    Raises:
        OSError: with the folder.
    """
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make `folder`, and refuse it to all other claims until the block ends, or the process, however it ends.

    Where folders cannot be locked (Windows, some network drives) nobody is kept out. A folder that stays empty is
    removed.

    Raises:
        HeedfulError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HeedfulError(
                f"{folder}: another process writes there; wait for its end, or choose another folder"
            ) from None
        except OSError:
            pass  # a file system without locks
        try:
            yield
        finally:
            with suppress(OSError):  # what is not empty stays
                folder.rmdir()
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content`, atomically."""
    with replacing(path) as aside:
        aside.write_bytes(content)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _put(aside: Path, path: Path, kept: list[Path] | None) -> None:
    """Let `aside` take the place of `path`, with its owner and permissions if it is a file that is there."""
    written_instead = [errno.EBUSY, errno.EXDEV]  # it is mounted by itself, as containers do
    if kept is not None and os.name != "nt":  # the work of hours; on Windows a reader would lose what it reads
        written_instead += [errno.EPERM, errno.EACCES]
    if path.is_file():
        _be_like(path, aside)
    try:
        aside.replace(path)
    except OSError as error:
        if error.errno not in written_instead:
            raise
        try:
            old = path.open("r+b")  # not made anew: systems refuse that in a folder like /tmp
        except OSError:
            raise error from None
        _write_in_place(aside, path, old, kept)


def _be_like(path: Path, aside: Path) -> None:
    there = path.stat()
    if hasattr(os, "chown"):  # Windows has no such owners
        for owner in ((-1, there.st_gid), (there.st_uid, -1)):
            with suppress(OSError):  # not ours to give away
                os.chown(aside, *owner)
    mode = there.st_mode & 0o7777
    if aside.stat().st_gid != there.st_gid:  # what one group was allowed is not for another
        mode &= ~0o070
    with suppress(OSError):  # some network drives know no permissions
        aside.chmod(mode)


def _write_in_place(aside: Path, path: Path, old: IO[bytes], kept: list[Path] | None) -> None:
    try:
        with old, aside.open("rb") as new:
            old.truncate()
            shutil.copyfileobj(new, old)
        _sync(path)
    except OSError as error:
        raise HeedfulError(
            f"{path}: not written whole ({error.strerror}); all of it is in {_keep(aside, path)}"
        ) from None
    except BaseException:
        place = _keep(aside, path)  # the old file is gone already
        if kept is not None:
            kept.append(place)
        raise


def _keep(aside: Path, path: Path) -> Path:
    """Move what was written to a name of its own beside `path`, and return it; that of an earlier time stays."""
    place = path.with_name(f"{path.name}.partial")
    others = (place.with_name(f"{place.name}.{number}") for number in count(2))
    place = next(free for free in chain([place], others) if not free.exists())
    return aside.replace(place)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot sync folders
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows syncs what it may write
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not path.is_dir() or error.errno not in UNABLE:
            raise
    finally:
        os.close(descriptor)
