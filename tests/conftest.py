"""Shapes are checked at run time in every test: jaxtyping's hook must stand before the first import of heedful."""

import os
import random
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import jaxtyping
import pytest

# Tensors of a few hundred numbers gain nothing from a second thread, and its barriers cost much on a busy machine.
# Before torch is imported; the processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # equal bytes are promised on a processor
for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):  # what rich asks before it looks at the terminal
    os.environ.pop(name, None)
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"  # a proxy knows nothing of this machine's
hypothesis.settings.register_profile("heedful", deadline=None)  # a busy machine is no defect of ours
hypothesis.settings.load_profile("heedful")

# Not decoding.search: beartype refuses `typing.Self` in a method that the hook decorates on its own (PEP 673).
jaxtyping.install_import_hook(
    ["heedful.model", "heedful.training.loss", "heedful.decoding.alignment"], "beartype.beartype"
)

import numpy as np  # noqa: E402
import torch  # noqa: E402

from heedful import native  # noqa: E402
from heedful.model import linear, transformer  # noqa: E402
from heedful.model.settings import ModelConfig  # noqa: E402
from heedful.model.transformer import Transformer  # noqa: E402
from heedful.text.vocabulary import Vocabulary, VocabularyConfig, learn  # noqa: E402

DATA = Path(os.environ.get("HEEDFUL_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
SIZES = {
    "encoder_layers": 2,
    "decoder_layers": 3,
    "d_model": 14,
    "heads": 2,
    "d_k": 5,
    "d_v": 3,
    "d_ff": 23,
    "dropout": 0.0,
    "max_positions": 97,
}


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """No test touches the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEEDFUL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _seeded():
    """What a test draws does not depend on which others ran before it."""
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)


@pytest.fixture
def without_compiler(monkeypatch):
    """Have torch's operations do everything."""
    monkeypatch.setenv("HEEDFUL_COMPILE", "0")
    native._compiled.cache_clear()
    yield
    native._compiled.cache_clear()


@pytest.fixture(params=["compiled", "torch", "long"])
def each_way(request, monkeypatch):
    """Compute attention by training.cpp, by torch's operations, and, as of long texts, by torch's fused one."""
    if request.param != "compiled":
        request.getfixturevalue("without_compiler")
    if request.param == "long":
        monkeypatch.setattr(transformer, "SHORT", 0)


@pytest.fixture
def products_by_torch(monkeypatch):
    """Have torch's own products in linear layers: those of oneDNN are unknown to its counter of FLOPs."""
    monkeypatch.setattr(linear, "onednn_is_faster", lambda: False)


@pytest.fixture(params=["compiled", "torch"])
def compiled_or_not(request):
    """Run a test with the compiled functions, and without them."""
    if request.param == "torch":
        request.getfixturevalue("without_compiler")
    elif native.library("training") is None:
        pytest.skip("no C++ compiler here")


@pytest.fixture(scope="session")
def served():
    """Return a context in which an application answers at an address of its own."""
    uvicorn = pytest.importorskip("uvicorn", reason="the extra serve is not installed")

    @contextmanager
    def serve(app):
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            deadline = time.monotonic() + 60
            while not server.started:
                assert thread.is_alive(), "the server ended before it had started"
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.02)
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
        assert not thread.is_alive()

    return serve


@pytest.fixture(scope="session")
def data_folder():
    """Return a function: the folder of a data set, or a skip that says what is absent."""

    def find(name: str) -> Path:
        folder = DATA / name
        if not folder.is_dir():
            pytest.skip(f"no data at {folder}; set HEEDFUL_DATA")
        return folder

    return find


@pytest.fixture(scope="session")
def tiny_model():
    """Return a maker of small random models in evaluation mode; norms and biases are random too, so that they count."""

    def make(
        seed: int = 1, source_size: int = 29, target_size: int = 29, dtype=torch.float32, **changes
    ) -> Transformer:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Transformer(ModelConfig(**{**SIZES, **changes}), source_size, target_size)
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.dim() == 1:
                        parameter.add_(torch.randn_like(parameter) / 5)
        return model.to(dtype).eval()

    return make


@pytest.fixture(scope="session")
def toy_vocabulary() -> Vocabulary:
    """Return a small joint vocabulary that spells what it does not know in bytes."""
    words = [
        "the",
        "a",
        "cat",
        "dog",
        "house",
        "tree",
        "ein",
        "eine",
        "Katze",
        "Hund",
        "Haus",
        "Baum",
        "sees",
        "and",
        "finds",
        "sieht",
        "und",
        "findet",
        "ü",
        "ß",
    ]
    chance = random.Random(3)
    lines = [" ".join(chance.choices(words, k=7)) for _ in range(211)]
    return learn(lines[:101], lines[101:], VocabularyConfig(size=331))
