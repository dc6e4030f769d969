import errno
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from hashlib import sha256 as hash_of
from pathlib import Path

import pytest

from heedful.errors import HeedfulError
from heedful.files import (
    cache_folder,
    claimed,
    remove,
    remove_leftovers,
    remove_unused,
    replacing,
    sha256,
    write_bytes,
    write_text,
)


def everything_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def write_half_and_fail(path):
    with replacing(path) as aside:
        aside.write_text("half of the n")
        raise RuntimeError("the lights went out")


def test_without_a_home_folder_the_cache_has_to_be_named(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    for name in ("HEEDFUL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(HeedfulError, match="set HEEDFUL_CACHE"):
        cache_folder()


def test_an_exception_leaves_the_old_content_and_no_temporary_file(tmp_path):
    path = tmp_path / "text"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="lights"):
        write_half_and_fail(path)
    assert path.read_text() == "old"
    assert everything_in(tmp_path) == ["text"]


def test_an_exception_before_there_was_a_file_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="lights"):
        write_half_and_fail(tmp_path / "text")
    assert everything_in(tmp_path) == []


def test_the_old_content_stands_until_the_block_ends(tmp_path):
    path = tmp_path / "text"
    path.write_text("old")
    with replacing(path) as aside:
        aside.write_text("new")
        assert path.read_text() == "old"
        assert aside.parent == path.parent  # a rename is atomic only within one file system
    assert path.read_text() == "new"
    assert everything_in(tmp_path) == ["text"]


def test_a_link_stays_a_link_and_what_it_points_to_is_replaced(tmp_path):
    (tmp_path / "old").write_text("old")
    (tmp_path / "link").symlink_to("old")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "old").read_text() == "new"
    assert everything_in(tmp_path) == ["link", "old"]


def test_folders_above_the_file_are_made(tmp_path):
    write_text(tmp_path / "a" / "b" / "text", "new")
    assert everything_in(tmp_path) == ["a", "a/b", "a/b/text"]


def test_a_folder_can_be_written_whole(tmp_path):
    with replacing(tmp_path / "model") as aside:
        (aside / "inner").mkdir(parents=True)
        (aside / "inner" / "weights").write_text("w")
        (aside / "settings").write_text("s")
        assert not (tmp_path / "model").exists()
    assert everything_in(tmp_path) == ["model", "model/inner", "model/inner/weights", "model/settings"]


def write_half_a_folder_and_fail(path):
    with replacing(path) as aside:
        (aside / "inner").mkdir(parents=True)
        (aside / "inner" / "weights").write_text("w")
        raise RuntimeError("the lights went out")


def test_half_a_folder_is_removed_on_an_exception(tmp_path):
    with pytest.raises(RuntimeError, match="lights"):
        write_half_a_folder_and_fail(tmp_path / "model")
    assert everything_in(tmp_path) == []


def test_what_a_killed_process_left_aside_does_not_get_in_the_way(tmp_path):
    path = tmp_path / "text"
    with replacing(path) as aside:
        aside.write_text("first")
    aside.mkdir()
    (aside / "left over").write_text("x")
    write_text(path, "second")
    assert path.read_text() == "second"
    remove_leftovers(tmp_path, "text")
    assert everything_in(tmp_path) == ["text"]


def test_text_is_written_as_utf8_with_bare_newlines(tmp_path):
    write_text(tmp_path / "text", "schön\nweit")
    assert (tmp_path / "text").read_bytes() == "schön\nweit".encode()


def test_removing_takes_files_folders_and_nothing_at_all(tmp_path):
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    write_bytes(tmp_path / "file", b"x")
    for name in ("folder", "file", "never there"):
        remove(tmp_path / name)
    assert everything_in(tmp_path) == []


def test_removing_a_link_to_a_folder_leaves_the_folder(tmp_path):
    write_bytes(tmp_path / "folder" / "file", b"x")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    remove(tmp_path / "link")
    assert everything_in(tmp_path) == ["folder", "folder/file"]


def test_the_hash_of_a_file_is_that_of_its_content(tmp_path):
    content = bytes(range(251)) * 10_007
    write_bytes(tmp_path / "file", content)
    assert sha256(tmp_path / "file") == hash_of(content).hexdigest()


def test_a_folder_is_not_written_to_before_anything_is_done(tmp_path):
    with pytest.raises(IsADirectoryError), replacing(tmp_path):
        pytest.fail("work that would be lost")


def test_a_claimed_folder_is_refused_to_another_until_the_block_ends(tmp_path):
    folder = tmp_path / "runs" / "model"
    with claimed(folder), pytest.raises(HeedfulError, match="another process writes there"), claimed(folder):
        pass
    with claimed(folder):
        (folder / "text").write_text("kept")
    assert everything_in(tmp_path) == ["runs", "runs/model", "runs/model/text"]


def test_a_claim_ends_with_its_process_however_it_ends(tmp_path):
    program = (
        "import os, sys, pathlib, heedful.files as files\nwith files.claimed(pathlib.Path(sys.argv[1])): os.abort()"
    )
    assert subprocess.run([sys.executable, "-c", program, tmp_path / "model"], check=False).returncode < 0
    with claimed(tmp_path / "model"):
        pass


def test_a_claimed_folder_that_stays_empty_is_removed(tmp_path):
    with pytest.raises(RuntimeError, match="lights"), claimed(tmp_path / "model"):
        raise RuntimeError("the lights went out")
    assert everything_in(tmp_path) == []


def test_what_nobody_has_used_for_long_is_removed(tmp_path):
    for name, days in {"old": 61, "new": 59}.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, time.time() - 86_400 * days))
    remove_unused(tmp_path, 60)
    remove_unused(tmp_path / "not there", 60)
    assert everything_in(tmp_path) == ["new"]


@pytest.mark.skipif(os.name == "nt", reason="no such permissions there")
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path):
    file = tmp_path / "keys"
    write_text(file, "one")
    file.chmod(0o640)
    write_text(file, "two")
    assert (file.stat().st_mode & 0o777, file.read_text()) == (0o640, "two")


@pytest.mark.parametrize("why", [errno.EBUSY, errno.EPERM])  # mounted by itself; somebody else's in a sticky folder
def test_a_file_that_can_be_written_but_not_replaced_is_written(tmp_path, monkeypatch, why):
    def cannot_be(self, to):
        raise OSError(why, os.strerror(why), str(to))

    (tmp_path / "out").write_text("one")
    monkeypatch.setattr(Path, "replace", cannot_be)
    with replacing(tmp_path / "out", []) as aside:
        aside.write_text("two")
    assert (everything_in(tmp_path), (tmp_path / "out").read_text()) == (["out"], "two")


def test_but_for_the_work_of_hours_no_file_of_somebody_else_is_written_in_place(tmp_path, monkeypatch):
    def cannot_be(self, to):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(to))

    (tmp_path / "out").write_text("one")
    monkeypatch.setattr(Path, "replace", cannot_be)
    with pytest.raises(PermissionError):
        write_text(tmp_path / "out", "two")
    assert (everything_in(tmp_path), (tmp_path / "out").read_text()) == (["out"], "one")


def test_what_cannot_be_written_whole_in_place_is_kept_beside(tmp_path, monkeypatch):
    replace = Path.replace

    def is_mounted(self, to):
        if to.name == "out":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(to))
        return replace(self, to)

    def is_full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "out").write_text("one")
    monkeypatch.setattr(Path, "replace", is_mounted)
    monkeypatch.setattr(shutil, "copyfileobj", is_full)
    with pytest.raises(HeedfulError, match=r"out: not written whole .*all of it is in .*out\.partial"):
        write_text(tmp_path / "out", "two")
    assert (everything_in(tmp_path), (tmp_path / "out.partial").read_text()) == (["out", "out.partial"], "two")


@pytest.mark.parametrize("name", ["text", "folder"])
def test_where_folders_cannot_be_synced_files_and_folders_are_written_all_the_same(tmp_path, monkeypatch, name):
    sync = os.fsync

    def files_alone(number):
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        sync(number)

    monkeypatch.setattr(os, "fsync", files_alone)
    with replacing(tmp_path / name) as aside:
        if name == "folder":
            aside.mkdir()
        (aside / "text" if name == "folder" else aside).write_text("new")
    assert (tmp_path / name).exists()


def interrupted_while(path, monkeypatch, doing, kept):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(*doing, interrupt)
    with pytest.raises(KeyboardInterrupt), replacing(path, kept) as aside:
        aside.write_text("new")


def test_the_work_of_hours_is_kept_where_it_cannot_take_its_place(tmp_path, monkeypatch):
    kept = []
    for _ in range(2):
        interrupted_while(tmp_path / "out", monkeypatch, (os, "fsync"), kept)
    assert kept == [tmp_path / "out.partial", tmp_path / "out.partial.2"]
    assert [path.read_text() for path in kept] == ["new", "new"]
    assert everything_in(tmp_path) == ["out.partial", "out.partial.2"]


def test_what_is_interrupted_while_it_is_written_in_place_is_kept(tmp_path, monkeypatch):
    (tmp_path / "out").write_text("old")
    replace = Path.replace

    def is_mounted(self, to):
        if to.name == "out":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(to))
        return replace(self, to)

    monkeypatch.setattr(Path, "replace", is_mounted)
    kept = []
    interrupted_while(tmp_path / "out", monkeypatch, (shutil, "copyfileobj"), kept)
    assert kept == [tmp_path / "out.partial"]
    assert kept[0].read_text() == "new"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux which file is meant")
def test_a_file_is_on_disk_before_it_takes_its_place_and_its_name_after(tmp_path, monkeypatch):
    did, replace = [], Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: did.append(Path(f"/proc/self/fd/{number}").readlink().name))
    monkeypatch.setattr(Path, "replace", lambda self, to: (did.append("renamed"), replace(self, to))[1])
    write_text(tmp_path / "text", "new")
    aside, *after = did
    assert re.fullmatch(rf"\.text\.{os.getpid()}\d+\.tmp", aside)
    assert after == ["renamed", tmp_path.name]
