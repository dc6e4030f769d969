"""The compiled functions that search uses, against torch's, and what happens where nothing can be compiled."""

import errno
import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from heedful import native
from heedful.errors import HeedfulError
from heedful.model.compiled import multiplies
from heedful.model.compiled_inference import CompiledInference, compiled


@pytest.fixture(scope="module")
def kernels():
    return native.library("search") or pytest.skip("no C++ compiler here")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Look for a compiler anew, in an empty cache."""
    monkeypatch.setenv("HEEDFUL_CACHE", str(tmp_path))
    native._compiled.cache_clear()
    yield monkeypatch
    native._compiled.cache_clear()


def check_products_of_8_bits(model, rows):
    x, weight = torch.randn(rows, model.config.d_model), model.output.weight
    x[0] *= 100
    found = CompiledInference(compiled(model, "int8")).logits(x)
    largest, scale = x.abs().amax(1, keepdim=True), weight.abs().amax(1) / 127
    rounded = (x * (127 / largest)).round()  # as it is computed: near a half a quotient would round otherwise
    expected = (rounded @ (weight / scale[:, None]).round().T) * (largest / 127) * scale
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("inputs", [1, 4, 15, 16, 67, 193])
@pytest.mark.parametrize("rows", [1, 5, 13])
def test_products_of_8_bits_are_those_of_the_rounded_numbers(tiny_model, inputs, rows):
    model = tiny_model(d_model=inputs, heads=1, d_k=2, d_v=2)
    if not multiplies("int8"):
        pytest.skip("no C++ compiler here, or a processor without products of 8 bits")
    check_products_of_8_bits(model, rows)


# What AVX-VNNI does in one instruction, for processors that lack it.
EMULATED = """
#include <immintrin.h>
inline __m256i emulated(__m256i sums, __m256i unsigned_bytes, __m256i signed_bytes) {
    alignas(32) int whole[8]; alignas(32) unsigned char a[32]; alignas(32) signed char b[32];
    _mm256_store_si256((__m256i *)whole, sums);
    _mm256_store_si256((__m256i *)a, unsigned_bytes);
    _mm256_store_si256((__m256i *)b, signed_bytes);
    for (int i = 0; i < 32; i++) whole[i / 4] += a[i] * b[i];
    return _mm256_load_si256((const __m256i *)whole);
}
#define _mm256_dpbusd_avx_epi32 emulated
"""


@pytest.mark.parametrize(("options", "together"), [("", 2), ("-D__AVXVNNI__ -include {emulated}", 4)])
def test_products_of_8_bits_are_the_same_on_narrower_processors(tiny_model, fresh, tmp_path, options, together):
    described = Path("/proc/cpuinfo")
    if not (described.is_file() and " avx2 " in described.read_text()):
        pytest.skip("a processor without AVX2")
    try:
        compiler, emulated = native._compiler(), tmp_path / "emulated.h"
    except HeedfulError as error:
        pytest.skip(str(error))
    emulated.write_text(EMULATED)
    narrower = tmp_path / "narrower"
    more = options.format(emulated=emulated)
    narrower.write_text(f'#!/bin/sh\nexec {shlex.join(compiler)} "$@" -march=haswell {more}\n')
    narrower.chmod(0o755)
    fresh.setenv("CXX", str(narrower))
    library = native.library("search")
    assert (library.panel(), library.together(2)) == (16, together)
    for inputs, rows in ((1, 1), (4, 6), (15, 5), (67, 13)):
        check_products_of_8_bits(tiny_model(d_model=inputs, heads=1, d_k=2, d_v=2), rows)


def test_a_row_of_zeros_stays_one_in_8_bits(tiny_model):
    model = tiny_model()
    if not multiplies("int8"):
        pytest.skip("no C++ compiler here, or a processor without products of 8 bits")
    assert not CompiledInference(compiled(model, "int8")).logits(torch.zeros(3, model.config.d_model)).any()


@pytest.mark.parametrize("vocabulary", [1, 15, 16, 64, 67, 5987])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_log_sum_exp_is_torchs(kernels, vocabulary, scale):
    x = scale * torch.randn(7, vocabulary) + 3
    found = torch.empty(7)
    kernels.log_sum_exp(x.data_ptr(), 7, vocabulary, found.data_ptr())
    torch.testing.assert_close(found, x.logsumexp(1), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("sums_given", [False, True])
@pytest.mark.parametrize(
    ("width", "vocabulary", "count"), [(1, 5987, 2), (4, 600, 8), (3, 37, 6), (2, 3, 4), (5, 67, 166)]
)
def test_successors_are_the_best_log_probabilities(kernels, width, vocabulary, count, sums_given):
    logits, live = torch.randn(3, width, vocabulary), torch.randn(3, width)
    totals, forbidden = np.empty((3, count), dtype=np.float32), np.array([0, 2])
    parents, chosen = np.empty((2, 3, count), dtype=np.int64)
    sums = logits.logsumexp(2).contiguous()
    log_BWV = logits.log_softmax(2)
    log_BWV[:, :, [0, 2]] = -1e9
    expected = (log_BWV + live[:, :, None]).flatten(1).topk(min(count, width * (vocabulary - 2)))
    kernels.successors(
        *(logits.data_ptr(), live.data_ptr(), sums.data_ptr() if sums_given else None, 3, width, vocabulary),
        *(forbidden.ctypes.data, 2, -1e9, count, totals.ctypes.data, parents.ctypes.data, chosen.ctypes.data),
    )
    possible = expected.values.size(1)
    assert (parents * vocabulary + chosen)[:, :possible].tolist() == expected.indices.tolist()
    assert totals[:, :possible] == pytest.approx(expected.values.numpy(), abs=1e-5)
    assert (logits[:, :, [0, 2]] == -1e9).all()


def test_who_asks_while_it_is_prepared_waits_and_nothing_is_compiled_twice(kernels, fresh):
    compiled, compile_it = [], native._compile
    fresh.setattr(native, "_compile", lambda *arguments: (compiled.append(1), compile_it(*arguments)))
    native.prepare("search")
    assert native.library("search") is not None
    assert len(compiled) == 1


def test_the_library_is_made_once(kernels, fresh, tmp_path):
    assert native.library("search") is not None
    [made] = tmp_path.iterdir()
    before = made.stat()
    native._compiled.cache_clear()
    assert native.library("search") is not None
    assert made.stat().st_ino == before.st_ino


def test_a_library_that_nothing_has_used_for_long_is_removed_with_the_next_one(kernels, fresh, tmp_path):
    used, old, other = (f"search-{2 * 'fedcba98'}.so", f"search-{2 * '01234567'}.so", "corpus.txt")
    for name, days in ((used, 1), (old, 100), (other, 100)):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (time.time() - 86_400 * days,) * 2)
    assert native.library("search") is not None
    assert {path.name for path in tmp_path.iterdir()} - {native._compiled("search").name} == {used, other}


def test_a_damaged_library_is_not_there_the_next_time(tmp_path):
    (tmp_path / "search.so").write_bytes(b"")
    assert native._loaded("search", tmp_path / "search.so") is None
    assert not (tmp_path / "search.so").exists()


def test_why_a_compiler_failed_is_said_by_the_line_that_tells_it():
    for said, why in (
        ("search.cpp: In function\nfatal error: no space left\ncompilation terminated.", "fatal error: no space left"),
        ("ld: final link failed: No space left\ncollect2: error: ld returned 1 exit status", "ld: final link failed"),
        ("Killed", "Killed"),
    ):
        assert f"({why}" in native._reason(subprocess.CalledProcessError(1, ["g++"], stderr=said.encode()))


@pytest.mark.parametrize("compiler", ["false", "no-such-compiler"])
def test_without_a_working_compiler_there_is_no_library(fresh, tmp_path, compiler):
    fresh.setenv("CXX", compiler)
    assert native.library("search") is None
    assert compiler in native.lacking("search")
    assert not list(tmp_path.iterdir())


def test_a_compiler_may_have_options_which_count_instead_of_ours(fresh, kernels):
    commands, run = [], subprocess.run
    fresh.setattr(
        native.subprocess, "run", lambda command, **options: commands.append(command) or run(command, **options)
    )
    fresh.setenv("CXX", f"env -u HEEDFUL {shutil.which('c++') or shutil.which('g++') or shutil.which('clang++')} -O1")
    assert native.library("search").panel() == kernels.panel()
    assert native.lacking("search") == ""
    assert [command[-1] for command in commands] == ["--version", "-O1", "-O1"]


def test_a_cache_may_be_the_folder_that_one_is_in(fresh, kernels, tmp_path):
    fresh.chdir(tmp_path)
    fresh.setenv("HEEDFUL_CACHE", ".")
    assert native.library("search") is not None


@pytest.mark.parametrize("compiler", ["/opt/o'brien/g++", "no such"])
def test_an_odd_name_of_a_compiler_is_none(fresh, compiler):
    fresh.setenv("CXX", compiler)
    assert native.library("search") is None
    assert native.lacking("search") == f"no C++ compiler was found ({compiler}); install one, or name one in CXX"


def test_a_compiler_may_stand_in_a_folder_with_spaces(fresh, tmp_path):
    folder = tmp_path / "my tools"
    folder.mkdir()
    (folder / "g++").symlink_to(native._compiler()[0])
    fresh.setenv("CXX", str(folder / "g++"))
    assert native._compiler() == (str(folder / "g++"),)
    fresh.setenv("CXX", " ")
    assert native._compiler()


def test_a_cache_that_cannot_be_written_is_named(fresh, kernels):
    assert kernels
    fresh.setenv("HEEDFUL_CACHE", "/proc/nothing")
    assert native.library("search") is None
    assert "/proc/nothing: No such file or directory; set HEEDFUL_CACHE" in native.lacking("search")


def test_a_cache_that_is_there_and_closed_is_named_before_anything_is_compiled(fresh, kernels, tmp_path):
    def closed(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    asked = []
    fresh.setattr(native.Path, "touch", closed)
    fresh.setattr(
        native.subprocess,
        "run",
        lambda command, **_: asked.append(command) or subprocess.CompletedProcess(command, 0, stdout=b""),
    )
    assert native.library("search") is None
    assert [command[-1] for command in asked] == ["--version"]
    assert "Permission denied; set HEEDFUL_CACHE" in native.lacking("search")


def test_it_can_be_done_without(fresh):
    fresh.setenv("HEEDFUL_COMPILE", "0")
    assert native.library("search") is None
