import copy

import pytest
import torch

from heedful.data.batches import batch_of
from heedful.model import linear
from heedful.training import precision
from heedful.training.loop import batch_loss
from heedful.training.precision import Mixed

BATCH = batch_of([[5, 6, 7, 3], [8, 3]], [[9, 3], [10, 11, 12, 13, 3]])


@pytest.mark.parametrize(("native", "faster"), [(True, True), (True, False), (False, True)])
def test_bfloat16_is_chosen_where_the_processor_has_it_and_gains_by_it(tiny_model, monkeypatch, native, faster):
    monkeypatch.setattr(precision, "has_native_bfloat16", lambda _device: native)
    monkeypatch.setattr(precision, "multiplies_bfloat16_faster", lambda _device: faster)
    expected = torch.bfloat16 if native and faster else torch.float32
    assert next(Mixed(tiny_model(), "auto").computing.parameters()).dtype == expected
    assert next(Mixed(tiny_model(), "bfloat16").computing.parameters()).dtype == torch.bfloat16
    assert next(Mixed(tiny_model(), "float32").computing.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("flags", "capability", "native"),
    [
        ("avx2 fma", "AVX2", False),
        ("avx512f avx512_bf16", "AVX512", True),
        ("avx512f amx_bf16 amx_tile", "AVX512", True),
        ("avx512f amx_tile amx_int8", "AVX512", False),
        ("avx512_bf16", "DEFAULT", False),
    ],
)
def test_bfloat16_is_told_by_the_processors_flags(monkeypatch, tmp_path, flags, capability, native):
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    monkeypatch.setattr(linear, "Path", lambda _path: tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert linear.has_native_bfloat16(torch.device("cpu")) is native


@pytest.mark.parametrize("faster", [torch.float32, torch.bfloat16])
def test_what_is_faster_is_measured(monkeypatch, faster):
    seconds = iter([[2.0, 3.0], [1.0, 9.0]] if faster == torch.bfloat16 else [[1.0, 9.0], [2.0, 3.0]])
    monkeypatch.setattr(precision.timeit, "repeat", lambda *_a, **_k: next(seconds))
    measured = precision.multiplies_bfloat16_faster.__wrapped__(torch.device("cpu"))
    assert measured == (faster == torch.bfloat16)


def test_the_learning_model_stays_in_float32_and_is_the_computing_one_there(tiny_model):
    model = tiny_model()
    assert Mixed(model, "float32").computing is model
    Mixed(model, "bfloat16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_positions_are_turned_by_the_same_angles_in_either_precision(tiny_model):
    model = tiny_model(rotary=True, d_k=6)
    computing = Mixed(model, "bfloat16").computing
    whole, narrow = (each.encoder[0].self_attention.rotation.turns(300) for each in (model, computing))
    assert torch.equal(whole, narrow)


def test_gradients_of_several_batches_are_summed_in_float32(tiny_model):
    model = tiny_model()
    mixed, alone = Mixed(model, "bfloat16"), Mixed(copy.deepcopy(model), "bfloat16")
    sums = {}
    for _ in range(2):
        batch_loss(mixed.computing, BATCH, 0.1).smoothed.backward()
        mixed.collect_gradients()
        batch_loss(alone.computing, BATCH, 0.1).smoothed.backward()
        for name, parameter in alone.computing.named_parameters():
            sums[name] = sums.get(name, 0) + parameter.grad.float()
            parameter.grad = None
    assert all(torch.equal(parameter.grad, sums[name]) for name, parameter in model.named_parameters())
    assert all(parameter.grad is None for parameter in mixed.computing.parameters())


def test_gradients_in_bfloat16_are_close_to_those_in_float32(tiny_model):
    model = tiny_model()
    exact = copy.deepcopy(model)
    mixed = Mixed(model, "bfloat16")
    batch_loss(mixed.computing, BATCH, 0.1).smoothed.backward()
    mixed.collect_gradients()
    batch_loss(exact, BATCH, 0.1).smoothed.backward()
    ours, theirs = (torch.cat([p.grad.flatten() for p in each.parameters()]) for each in (model, exact))
    assert (ours - theirs).norm() < 0.05 * theirs.norm()


def test_what_bfloat16_cannot_add_is_not_lost(tiny_model):
    model = tiny_model()
    mixed = Mixed(model, "bfloat16")
    weight, computing = model.output.weight, mixed.computing.output.weight
    with torch.no_grad():
        weight.fill_(1.0)
        mixed.renew()
        for _ in range(100):
            weight.add_(1e-3)  # a quarter of what bfloat16 can add to 1
            mixed.renew()
    assert computing[0, 0].item() == pytest.approx(1.1, rel=0.01)
    assert mixed.computing.target_embedding.token.weight is computing
