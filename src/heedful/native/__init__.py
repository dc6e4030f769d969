"""The parts of search and of training that are written in C++: compiled where a compiler is, loaded with ctypes, and
never needed.

Each library is made once for each processor, compiler and version of the source, in heedful's cache folder. The
environment's CXX names the compiler, with options if need be, which then count instead of ours; HEEDFUL_COMPILE=0 does
without.
"""

import ctypes
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
from contextlib import suppress
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Literal

from heedful import files
from heedful.errors import HeedfulError

FOLDER = Path(__file__).parent
# As fast as -O3, in half of its time: what counts is that short inner loops are unrolled whole.
OPTIONS = ("-O2", "-fpeel-loops", "-std=c++17", "-fPIC")
TELLING, SUMMARY = re.compile("error|failed", re.IGNORECASE), re.compile("ld returned|linker command failed")  # lines
COMPILERS = ("g++", "c++", "clang++")  # torch brings the OpenMP of the first, on Linux
Name = Literal["search", "training"]
_lock = threading.Lock()
_lacking: dict[str, str] = {}
I64, U64, F32, F64, PTR = ctypes.c_int64, ctypes.c_uint64, ctypes.c_float, ctypes.c_double, ctypes.c_void_p
SIGNATURES: dict[Name, dict[str, list[type]]] = {
    "search": {
        "panel": [],
        "together": [I64],
        "encode": [PTR, PTR, PTR, PTR, I64, PTR, PTR],
        "remember": [PTR, PTR, I64, PTR],
        "step": [PTR, PTR, I64, I64, PTR, PTR, PTR, I64, PTR, PTR, PTR, I64, PTR, PTR],
        "logits": [PTR, PTR, I64, PTR],
        "log_sum_exp": [PTR, I64, I64, PTR],
        "successors": [PTR, PTR, PTR, I64, I64, I64, PTR, I64, F32, I64, PTR, PTR, PTR],
        "search": [PTR, PTR, PTR, PTR, I64, PTR, I64, PTR, PTR, PTR, PTR],
    },
    "training": {
        "lanes": [],
        "attention": [I64, PTR, PTR, PTR, PTR, PTR, F32, PTR, PTR, PTR],
        "attention_backward": [I64, PTR, PTR, PTR, PTR, PTR, F32, PTR, PTR, PTR, PTR, PTR],
        "dropout": [I64, PTR, PTR, I64, U64, I64, PTR],
        "layer_norm": [I64, PTR, PTR, PTR, I64, I64, F32, PTR, PTR],
        "layer_norm_backward": [I64, PTR, PTR, PTR, I64, I64, PTR, PTR, PTR, PTR],
        "softmax_in_place": [I64, PTR, I64, I64],
        "accumulate": [PTR, PTR, I64],
        "transposed": [PTR, I64, I64, PTR],
    },
}
UNUSED_DAYS = 60.0  # after which a library of an earlier version, or of another processor, is removed
COUNTS = ("panel", "together", "lanes", "encode", "step", "search")  # of all functions, those that return a number


def prepare(*names: Name) -> None:
    """Compile in the background what is still to be compiled: the compiler can work while all else is imported."""
    for name in names:
        threading.Thread(target=_path_of, args=(name,)).start()


def library(name: Name) -> ctypes.CDLL | None:
    """Return the compiled functions of `name`.cpp, or None where they cannot be had.

    Those of training take their threads from torch's OpenMP, and can be loaded only after torch has been.
    """
    path = _path_of(name)
    return _loaded(name, path) if path else None


def lacking(name: Name) -> str:
    """Return why `library` has nothing of this name, and what to do; "" if it has not been asked for or has it."""
    return _lacking.get(name, "")


def is_wanted() -> bool:
    """Return whether anything is to be compiled: not on Windows, nor where HEEDFUL_COMPILE is 0."""
    return os.environ.get("HEEDFUL_COMPILE") != "0" and platform.system() != "Windows"


@cache
def _loaded(name: Name, path: Path) -> ctypes.CDLL | None:
    try:
        loaded = ctypes.CDLL(str(path.absolute()))  # a mere name would be looked for where the system's libraries are
    except OSError as error:
        what = "CXX to g++" if "undefined symbol" in str(error) else "HEEDFUL_CACHE to a folder that may hold programs"
        _lacking[name] = f"{error}; set {what}"
        if "too short" in str(error) or "ELF header" in str(error):  # damaged: the next start makes it again
            with suppress(OSError):
                path.unlink()
        return None
    for function_name, arguments in SIGNATURES[name].items():
        function = getattr(loaded, function_name)
        function.argtypes, function.restype = arguments, I64 if function_name in COUNTS else None
    return loaded


def _path_of(name: Name) -> Path | None:
    with _lock:
        return _compiled(name)


@cache
def _compiled(name: Name) -> Path | None:
    _lacking.pop(name, None)
    try:
        compiler = _compiler()
        path = files.cache_folder() / f"{name}-{_key(compiler)}.so"
        if path.is_file():
            files.mark_used(path)
        else:
            _compile(compiler, name, path)
            files.remove_unused(path.parent, UNUSED_DAYS, f"{name}-{'[0-9a-f]' * 16}.so")
    except (OSError, HeedfulError, subprocess.SubprocessError) as error:
        _lacking[name] = _reason(error)
        return None
    return path


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; set HEEDFUL_CACHE to a folder with room, or CXX to a compiler that runs here"
    if isinstance(error, subprocess.CalledProcessError):
        said = error.stderr.decode("utf-8", "replace").strip().splitlines()
        status = said[-1] if said else f"status {error.returncode}"
        why = next((line for line in said if TELLING.search(line) and not SUMMARY.search(line)), status)
        return f"{error.cmd[0]} does not compile it ({why}); set CXX to another compiler"
    return str(error)


def _compiler() -> tuple[str, ...]:
    """Return the command that compiles, with the options that CXX may have.

    Raises:
        HeedfulError: there is none, or none is wanted.
    """
    if not is_wanted():
        raise HeedfulError(
            "HEEDFUL_COMPILE is 0" if os.environ.get("HEEDFUL_COMPILE") == "0" else "nothing is compiled on Windows"
        )
    wanted = os.environ.get("CXX", "").strip()
    for name in (wanted,) if wanted else COMPILERS:
        if found := shutil.which(name):
            return (found,)
    with suppress(ValueError):  # a quotation that does not end
        name, *options = shlex.split(wanted)
        if found := shutil.which(name):
            return (found, *options)
    raise HeedfulError(f"no C++ compiler was found ({wanted or ', '.join(COMPILERS)}); install one, or name one in CXX")


def _compile(compiler: tuple[str, ...], name: Name, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    processor = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    # OpenMP's own library is left to be found in the process: two of them would fight over the processor.
    apple = platform.system() == "Darwin"
    openmp = ("-Xpreprocessor", "-fopenmp") if apple else ("-fopenmp",)
    threads = openmp if name == "training" else ()
    options = tuple(takewhile(lambda word: word.startswith("-"), reversed(compiler)))[::-1]  # the last ones count
    with tempfile.TemporaryDirectory() as folder, files.replacing(path) as made:
        made.touch()  # a folder that cannot be written to is found before the compiler has worked
        object_ = Path(folder) / "object.o"
        compile_it = (*OPTIONS, processor, *threads, "-c", str(FOLDER / f"{name}.cpp"), "-o", str(object_))
        # else the C library would be asked first for what the source calls its own: glibc has a `step` too
        own = ("-Wl,-undefined,dynamic_lookup",) if apple else ("-Wl,-Bsymbolic",)
        for arguments in (compile_it, ("-shared", *own, str(object_), "-o", str(made))):
            subprocess.run([*compiler, *arguments, *options], check=True, capture_output=True, timeout=300)


def _key(compiler: tuple[str, ...]) -> str:
    """Tell apart what a library depends on: a home folder may be shared by machines that differ."""
    described = Path("/proc/cpuinfo")
    processor = platform.processor() + platform.machine()
    if described.is_file():
        lines = described.read_text().splitlines()
        processor += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=False).stdout
    sources = [path.read_bytes() for path in sorted(FOLDER.glob("*.*"))]  # this file too: it has the options
    parts = (*sources, shlex.join(compiler).encode(), version, processor.encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
