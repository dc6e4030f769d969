"""The parts of search that are written in C++: compiled where a compiler is, loaded with ctypes, and never needed.

The library is made once for each processor, compiler and version of the source, in heedful's cache folder. The
environment's CXX names the compiler; HEEDFUL_COMPILE=0 does without.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from functools import cache
from pathlib import Path

from heedful import files

SOURCE = Path(__file__).with_name("kernels.cpp")
# As fast as -O3, in half of its time: what counts is that short inner loops are unrolled whole.
OPTIONS = ("-O2", "-fpeel-loops", "-std=c++17", "-shared", "-fPIC")
COMPILERS = ("c++", "g++", "clang++")
_making = threading.Lock()
I64, PTR = ctypes.c_int64, ctypes.c_void_p
SIGNATURES = {
    "panel": [],
    "has_bfloat16": [],
    "encode": [PTR, PTR, PTR, PTR, I64, PTR, PTR],
    "remember": [PTR, PTR, I64, PTR],
    "step": [PTR, PTR, I64, I64, PTR, PTR, PTR, I64, PTR, PTR, PTR, I64, PTR, PTR],
    "logits": [PTR, PTR, I64, PTR],
    "log_sum_exp": [PTR, I64, I64, PTR],
    "successors": [PTR, PTR, PTR, I64, I64, I64, PTR, I64, ctypes.c_float, I64, PTR, PTR, PTR],
}


def prepare() -> None:
    """Compile in the background, if that is still to be done: the compiler can work while torch is imported."""
    threading.Thread(target=library).start()


def library() -> ctypes.CDLL | None:
    """Return the compiled functions of kernels.cpp, or None where they cannot be had."""
    with _making:
        return _library()


@cache
def _library() -> ctypes.CDLL | None:
    compiler = _compiler()
    if compiler is None:
        return None
    path = files.cache_folder() / f"kernels-{_key(compiler)}.so"
    try:
        if not path.is_file():
            _compile(compiler, path)
        loaded = ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError):
        return None
    for name, arguments in SIGNATURES.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, I64 if not arguments else None
    return loaded


def _compiler() -> str | None:
    if os.environ.get("HEEDFUL_COMPILE") == "0" or platform.system() == "Windows":
        return None
    wanted = os.environ.get("CXX")
    return next((found for name in ([wanted] if wanted else COMPILERS) if (found := shutil.which(name))), None)


def _compile(compiler: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arm = platform.machine() in ("arm64", "aarch64")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        command = [compiler, *OPTIONS, "-mcpu=native" if arm else "-march=native", str(SOURCE), "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        made.replace(path)


def _key(compiler: str) -> str:
    """Tell apart what the library depends on: a home folder may be shared by machines that differ."""
    described = Path("/proc/cpuinfo")
    processor = platform.processor() + platform.machine()
    if described.is_file():
        lines = described.read_text().splitlines()
        processor += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    parts = (SOURCE.read_bytes(), repr(OPTIONS).encode(), compiler.encode(), version, processor.encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
