import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from heedful.data.batches import batch_of
from heedful.errors import HeedfulError
from heedful.model.settings import ModelConfig
from heedful.model.transformer import Transformer
from heedful.model.weights import read_weights, weights_of
from heedful.text.vocabulary import PAD
from heedful.training import loop
from heedful.training.divergence import LossWatch
from heedful.training.loop import Ended, Evaluation, Notice, Saved, Step, train
from heedful.training.loss import smoothed_cross_entropy
from heedful.training.settings import TrainingConfig
from heedful.training.state import newest_state, random_state, read_progress, restore_random_state

SYMBOLS = 23
CONFIG = ModelConfig(encoder_layers=1, decoder_layers=1, d_model=14, d_ff=29, heads=2, dropout=0.0)


class OneBatch:
    """A stream that repeats given batches; its state is a count."""

    def __init__(self, *batches):
        self.batches, self.position, self.epoch = batches, 0, 0

    def __iter__(self):
        while True:
            self.position += 1
            yield self.batches[(self.position - 1) % len(self.batches)]

    def state(self):
        return {"epoch": self.epoch, "position": self.position}

    def restore(self, state):
        self.epoch, self.position = state["epoch"], state["position"]


def random_batch(rows=7, seed=1):
    generator = np.random.default_rng(seed)
    lines = [[*generator.integers(4, SYMBOLS, generator.integers(2, 6)).tolist(), 3] for _ in range(rows)]
    return batch_of(lines, [line[::-1][1:] + [3] for line in lines])


def fresh_model(**changes):
    torch.manual_seed(3)
    return Transformer(ModelConfig(**{**CONFIG.__dict__, **changes}), SYMBOLS, SYMBOLS)


def settings(**changes):
    """Return settings in float32, whatever this machine would choose: the comparisons below are that close."""
    few = {"steps": 5, "schedule": "cosine", "rate": 1e-2, "warmup": 2, "checkpoint_every": 2, "precision": "float32"}
    return TrainingConfig(**{**few, **changes})


def steps_of(records):
    return [record for record in records if isinstance(record, Step)]


def test_one_batch_is_overfitted_to_the_entropy_of_the_smoothed_labels(tmp_path):
    smoothing, model = 0.1, fresh_model()
    records = list(train(model, OneBatch(random_batch()), settings(steps=250, label_smoothing=smoothing), tmp_path))
    right, wrong = 1 - smoothing + smoothing / SYMBOLS, smoothing / SYMBOLS
    entropy = -right * math.log(right) - (SYMBOLS - 1) * wrong * math.log(wrong)
    losses = [step.loss for step in steps_of(records)]
    assert losses[0] > 2 * entropy
    assert losses[-1] == pytest.approx(entropy, rel=0.03)
    assert losses[-1] > entropy - 1e-6


def test_micro_batches_accumulate_to_the_gradient_of_one_big_batch(tmp_path):
    whole = random_batch(rows=12)
    halves = [type(whole)(*(tensor[rows] for tensor in whole)) for rows in (slice(0, 5), slice(5, 12))]
    big, small = fresh_model(), fresh_model()
    list(train(big, OneBatch(whole), settings(steps=3, clip=0.5), tmp_path / "big"))
    list(train(small, OneBatch(*halves), settings(steps=3, clip=0.5), tmp_path / "small", accumulate=2))
    for one, other in zip(big.parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-5)


def test_a_step_follows_the_gradient_of_the_mean_over_tokens(tmp_path):
    batch, model, config = random_batch(), fresh_model(), settings(steps=1, beta1=0.0, beta2=0.0, epsilon=1.0)
    target = batch.target_out_BT[batch.target_out_BT != PAD]
    before = [parameter.detach().clone() for parameter in model.parameters()]
    hidden = model.decode(batch.target_in_BT, model.encode(batch.source_BS, batch.source_lengths_B))
    logits = model.logits(hidden)[batch.target_out_BT != PAD]
    loss = functional.cross_entropy(logits, target, label_smoothing=config.label_smoothing)  # the mean
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    (step,) = steps_of(train(model, OneBatch(batch), config, tmp_path))
    for parameter, old, gradient in zip(model.parameters(), before, gradients, strict=True):
        expected = old - step.rate * gradient / (gradient.abs() + 1.0)  # Adam without memory, with epsilon 1
        torch.testing.assert_close(parameter, expected, rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_to_their_norm():
    model = fresh_model()
    loop.batch_loss(model, random_batch(), 0.1).smoothed.backward()
    norm = loop.scale_and_clip(model, 1.0, 0.25)
    assert norm > 0.25
    clipped = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert float(clipped) == pytest.approx(0.25, rel=1e-4)


def test_a_step_is_clipped(tmp_path):
    model = fresh_model()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    config = settings(steps=1, clip=1e-3, beta1=0.0, beta2=0.0, epsilon=1.0)  # Adam that nearly follows the gradient
    (step,) = steps_of(train(model, OneBatch(random_batch()), config, tmp_path))
    moved = torch.cat([(p - old).flatten() for p, old in zip(model.parameters(), before, strict=True)]).norm()
    assert moved.item() == pytest.approx(step.rate * 1e-3, rel=0.02)


def test_with_consistency_each_batch_passes_twice(tmp_path):
    model, rows = fresh_model(dropout=0.3), []
    model.encoder[0].register_forward_hook(lambda _layer, _given, out: rows.append(len(out)))
    list(train(model, OneBatch(random_batch(rows=7)), settings(steps=1, consistency=4.0), tmp_path))
    assert rows == [14]


def test_the_exponential_average_follows_the_weights(tmp_path):
    model, config = fresh_model(), settings(steps=3, checkpoint_every=3, exponential_average=0.9)
    expected = {name: tensor.clone() for name, tensor in weights_of(model).items()}
    for record in train(model, OneBatch(random_batch()), config, tmp_path):
        if isinstance(record, Step):
            kept = min(0.9, (1 + record.step) / (10 + record.step))
            for name, tensor in weights_of(model).items():
                expected[name].lerp_(tensor, 1 - kept)
    found = loop.final_weights(tmp_path, config)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor)


def test_the_exponential_average_is_judged_and_training_goes_on_from_its_own_weights(tmp_path):
    config = settings(steps=4, checkpoint_every=4, evaluate_every=1, exponential_average=0.9)
    alone, judged, seen = fresh_model(), fresh_model(), []

    def evaluate(model):
        seen.append({name: tensor.clone() for name, tensor in weights_of(model).items()})
        return {"loss": 1.0}, []

    list(train(alone, OneBatch(random_batch()), config, tmp_path / "alone"))
    list(train(judged, OneBatch(random_batch()), config, tmp_path / "judged", evaluate=evaluate))
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), judged.parameters(), strict=True))
    averaged = loop.final_weights(tmp_path / "alone", config)
    assert all(torch.equal(averaged[name], tensor) for name, tensor in seen[-1].items())
    name = next(iter(averaged))
    assert not torch.equal(seen[-1][name], weights_of(judged)[name])


def test_adamw_decays_weights_that_have_no_gradient():
    model = fresh_model()
    optimizer = loop.make_optimizer(model, settings(optimizer="adamw", weight_decay=0.5))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    optimizer.step()
    for parameter, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(parameter, 0.95 * old)


def test_matrix_rate_multiplies_the_step_of_the_matrices_alone():
    moved = []
    for factor in (1.0, 3.0):
        model = fresh_model()
        optimizer = loop.make_optimizer(model, settings(optimizer="muon", matrix_rate=factor))
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        torch.manual_seed(7)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        for group in optimizer.param_groups:
            group["lr"] = 0.1
        optimizer.step()
        moved.append({name: parameter.detach() - before[name] for name, parameter in model.named_parameters()})
    matrix, other = "encoder.0.feed_forward.inner.weight", "source_embedding.token.weight"
    torch.testing.assert_close(moved[1][matrix], 3 * moved[0][matrix], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(moved[1][other], moved[0][other])


def test_machines_whose_folders_hold_other_steps_do_not_go_on(tmp_path, monkeypatch):
    list(train(fresh_model(), OneBatch(random_batch()), settings(steps=2), tmp_path))
    monkeypatch.setattr(loop, "broadcast", lambda value: value + 2)  # what the first process has
    with pytest.raises(HeedfulError, match="one folder for all machines"):
        list(train(fresh_model(), OneBatch(random_batch()), settings(steps=9), tmp_path))


def test_a_loss_that_is_not_a_number_stops_at_its_step_and_keeps_the_last_good_state(tmp_path):
    model = fresh_model()
    records = train(model, OneBatch(random_batch()), settings(steps=9, checkpoint_every=2), tmp_path)
    for record in records:
        if isinstance(record, Saved) and record.step == 4:
            with torch.no_grad():
                next(model.parameters()).fill_(float("nan"))
            break
    with pytest.raises(HeedfulError, match=r"step 5 .*not a number.*step-00000004.*training\.rate"):
        list(records)
    assert newest_state(tmp_path).name == "step-00000004"


def test_a_loss_that_climbs_is_told_once_and_training_goes_on(tmp_path):
    model = fresh_model()
    records = []
    for record in train(model, OneBatch(random_batch()), settings(steps=250, checkpoint_every=50), tmp_path):
        records.append(record)
        if isinstance(record, Step) and record.step == 100:
            with torch.no_grad():  # far from what was learned, and every number still a number
                model.output.weight.mul_(-30)
    notices = [record.message for record in records if isinstance(record, Notice)]
    assert len(notices) == 1
    assert "climbs: " in notices[0]
    assert "up to step 100," in notices[0]
    assert "training.rate" in notices[0]
    assert steps_of(records)[-1].step == 250


def test_a_loss_that_falls_or_wavers_is_not_remarked_on():
    watch = LossWatch()
    falling = [9 * 0.99**step + 0.8 * (step % 2) for step in range(1000)]
    rising_a_little = [0.01 + 0.0009 * step for step in range(1000)]  # a hundredfold, by less than a nat
    assert not any(watch.see(step, loss) for step, loss in enumerate(falling + rising_a_little))


def test_training_stops_early_without_a_better_score_and_says_why(tmp_path):
    scores, judged = iter([3.0, 2.0, 2.5, 2.4, 2.3, 2.2]), []

    def evaluate(model):
        judged.append({name: tensor.clone() for name, tensor in weights_of(model).items()})
        return {"loss": 1.0, "bleu": next(scores)}, []

    records = list(
        train(
            fresh_model(),
            OneBatch(random_batch()),
            settings(steps=50, evaluate_every=3, patience=2, metric="bleu"),
            tmp_path,
            evaluate=evaluate,
        )
    )
    assert [record.best for record in records if isinstance(record, Evaluation)] == [True, False, False]
    assert records[-1] == Ended(9, "patience", records[-1].seconds)
    best = read_weights(tmp_path / "checkpoints" / "best.safetensors")
    assert all(torch.equal(best[name], tensor) for name, tensor in judged[0].items())
    assert (tmp_path / "checkpoints" / "step-00000009.safetensors").exists()  # of the end, whenever the next was due
    model = fresh_model()
    again = list(train(model, OneBatch(random_batch()), settings(steps=50, evaluate_every=3, patience=2), tmp_path))
    told, ended = again  # not a step more than before
    assert "best at step 3, before the checkpoints" in told.message
    assert ended == Ended(9, "patience", ended.seconds)


@pytest.mark.parametrize(("scores", "told"), [([3.0, 2.0, 2.5], True), ([2.0, 2.5, 3.0], False)])
def test_a_best_step_that_the_final_weights_have_nothing_of_is_told(tmp_path, scores, told):
    coming = iter(scores)
    records = train(
        fresh_model(),
        OneBatch(random_batch()),
        settings(steps=9, evaluate_every=3, checkpoint_every=1, average=2),
        tmp_path / "model" / "state",
        evaluate=lambda model: ({"loss": 1.0, "bleu": next(coming)}, []),
    )
    notices = [record.message for record in records if isinstance(record, Notice)]
    assert bool(notices) == told
    if told:
        assert "best at step 3" in notices[0]
        assert f"heedful average {tmp_path / 'model'} --weights" in notices[0]


def test_a_wish_to_stop_saves_and_ends(tmp_path):
    wishes = iter([False, False, True])
    records = list(
        train(fresh_model(), OneBatch(random_batch()), settings(steps=50), tmp_path, stop=lambda: next(wishes))
    )
    assert [type(record) for record in records[-2:]] == [Saved, Ended]
    assert records[-1].reason == "interrupted"
    assert newest_state(tmp_path).name == "step-00000003"


def test_warnings_of_the_evaluator_are_passed_on(tmp_path):
    records = train(
        fresh_model(),
        OneBatch(random_batch()),
        settings(steps=1),
        tmp_path,
        evaluate=lambda model: ({"loss": 1.0}, ["look"]),
    )
    assert Notice("look") in list(records)


@pytest.mark.parametrize(
    ("cut", "optimizer", "precision"),
    [(1, "adam", "float32"), (3, "adam", "bfloat16"), (4, "adam", "float32"), (3, "muon", "bfloat16")],
)
def test_a_resumed_training_ends_in_the_very_same_weights(tmp_path, cut, optimizer, precision):
    config = settings(steps=6, checkpoint_every=1, exponential_average=0.9, optimizer=optimizer, precision=precision)
    batches = [random_batch(seed=seed) for seed in (1, 2, 3)]
    whole = fresh_model(dropout=0.3)
    torch.manual_seed(5)
    list(train(whole, OneBatch(*batches), config, tmp_path / "whole"))
    torch.manual_seed(5)
    first = fresh_model(dropout=0.3)
    torch.manual_seed(5)
    for record in train(first, OneBatch(*batches), config, tmp_path / "parts"):
        if isinstance(record, Saved) and record.step == cut:
            break
    torch.manual_seed(99)
    second = fresh_model(dropout=0.3)
    list(train(second, OneBatch(*batches), config, tmp_path / "parts"))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))
    averages = [loop.final_weights(tmp_path / name, config) for name in ("whole", "parts")]
    assert all(torch.equal(averages[0][name], averages[1][name]) for name in averages[0])


def test_other_threads_than_before_are_told_on_resuming(tmp_path, monkeypatch):
    def records(steps):
        return list(train(fresh_model(), OneBatch(random_batch()), settings(steps=steps), tmp_path))

    assert not any(isinstance(record, Notice) for record in records(2) + records(3))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 61)
    [notice] = [record.message for record in records(4) if isinstance(record, Notice)]
    assert "61 threads" in notice
    assert f"torch {torch.__version__}" in notice
    assert "not the same to the last bit" in notice


def test_random_states_of_a_gpu_stand_behind_the_processors(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.arange(16, dtype=torch.uint8))
    restored = []
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: restored.append(state.tolist()))
    gpu, processor = torch.device("cuda"), torch.device("cpu")
    state = random_state(gpu)
    drawn = torch.rand(3)
    for device in (gpu, processor):
        restore_random_state(state, device)
        assert torch.equal(torch.rand(3), drawn)
    assert restored == [list(range(16))]
    restore_random_state(random_state(processor), gpu)  # the GPU's goes on from its seed
    assert len(restored) == 1


def test_nothing_of_the_first_half_of_the_steps_is_averaged(tmp_path):
    model, config, seen = fresh_model(), settings(steps=4, checkpoint_every=1, average=5), {}
    for record in train(model, OneBatch(random_batch()), config, tmp_path):
        if isinstance(record, Step):
            seen[record.step] = model.output.weight.detach().clone()
    mean = loop.final_weights(tmp_path, config)["source_embedding.token.weight"]
    torch.testing.assert_close(mean, (seen[3] + seen[4]) / 2)


def test_only_the_last_checkpoints_are_kept_and_averaged(tmp_path):
    model = fresh_model()
    seen = {}
    for record in train(model, OneBatch(random_batch()), settings(steps=5, checkpoint_every=1, average=3), tmp_path):
        if isinstance(record, Step):
            seen[record.step] = model.output.weight.detach().clone()
    kept = loop.last_checkpoints(tmp_path / "checkpoints", 100)
    assert [path.stem for path in kept] == [f"step-{step:08d}" for step in (3, 4, 5)]
    mean = loop.final_weights(tmp_path, settings(average=3))["source_embedding.token.weight"]
    torch.testing.assert_close(mean, (seen[3] + seen[4] + seen[5]) / 3)


def test_no_tensor_of_tokens_times_vocabulary_exists(monkeypatch):
    rows, vocabulary, width = 1531, 3001, 11
    hidden, weight = torch.randn(rows, width, requires_grad=True), torch.randn(vocabulary, width, requires_grad=True)
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        smoothed_cross_entropy(hidden, weight, torch.randint(vocabulary, (rows,)), 0.1).smoothed.backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert 0 < largest < rows * vocabulary * 4 * 0.75


@pytest.mark.parametrize(
    ("metric", "scores", "best"),
    [("loss", [3.0, 2.0, 2.5], [True, True, False]), ("chrf", [3.0, 2.0, 3.5], [True, False, True])],
)
def test_the_best_step_is_that_of_the_metric_asked_for(tmp_path, metric, scores, best):
    coming = iter(scores)
    records = train(
        fresh_model(),
        OneBatch(random_batch()),
        settings(steps=3, evaluate_every=1, metric=metric),
        tmp_path,
        evaluate=lambda _model: ({"loss": 1.0, "bleu": 1.0, metric: next(coming)}, []),
    )
    assert [record.best for record in records if isinstance(record, Evaluation)] == best


def losses(*given):
    """Return an evaluator that gives these scores, one after another, and is killed where there is none."""
    coming = iter(given)

    def evaluate(_model):
        if (loss := next(coming)) is None:
            raise KeyboardInterrupt
        return {"loss": loss}, []

    return evaluate


def test_what_was_learned_is_on_disk_before_it_is_evaluated_and_a_resume_evaluates_first(tmp_path):
    config = settings(steps=6, checkpoint_every=2, evaluate_every=2, metric="loss", patience=9)
    batch = random_batch()
    whole = list(train(fresh_model(), OneBatch(batch), config, tmp_path / "a", evaluate=losses(3.0, 2.0, 4.0)))
    killed = train(fresh_model(), OneBatch(batch), config, tmp_path / "b", evaluate=losses(3.0, None))
    with pytest.raises(KeyboardInterrupt):
        list(killed)
    assert newest_state(tmp_path / "b").name == "step-00000004"
    model = fresh_model()
    resumed = list(train(model, OneBatch(batch), config, tmp_path / "b", evaluate=losses(2.0, 4.0)))
    assert [(one.step, one.best) for one in resumed if isinstance(one, Evaluation)] == [(4, True), (6, False)]
    assert isinstance(resumed[0], Evaluation)
    assert [one.step for one in steps_of(resumed)] == [5, 6]
    assert [type(one) for one in whole[-4:]] == [Saved, Evaluation, Saved, Ended]
    averages = [loop.final_weights(tmp_path / name, config) for name in ("a", "b")]
    assert all(torch.equal(averages[0][name], averages[1][name]) for name in averages[0])


def test_where_patience_ends_between_two_checkpoints_the_weights_are_kept(tmp_path):
    config = settings(steps=9, checkpoint_every=4, evaluate_every=1, metric="loss", patience=2)
    records = list(train(fresh_model(), OneBatch(random_batch()), config, tmp_path, evaluate=losses(*range(9))))
    assert records[-1].reason == "patience"
    assert (newest_state(tmp_path).name, records[-1].step) == ("step-00000003", 3)
    assert [path.stem for path in loop.last_checkpoints(tmp_path / "checkpoints", 9)] == ["step-00000003"]
    again = list(train(fresh_model(), OneBatch(random_batch()), config, tmp_path, evaluate=losses()))
    assert isinstance(again[-1], Ended)
    assert not steps_of(again)


def test_scores_on_other_development_text_are_not_compared(tmp_path):
    def records(steps, judged_by, *scores):
        config = settings(steps=steps, checkpoint_every=1, evaluate_every=1, metric="loss", patience=2)
        made = train(
            fresh_model(), OneBatch(random_batch()), config, tmp_path, evaluate=losses(*scores), judged_by=judged_by
        )
        return list(made)

    records(2, "easy", 1.0, 1.5)
    later = records(4, "hard", 3.0, 2.9)
    assert [one.best for one in later if isinstance(one, Evaluation)] == [True, True]
    assert any("development text is not that of the scores so far" in str(one) for one in later)
    assert later[-1].reason == "steps"


def test_two_passes_without_dropout_cost_what_one_does():
    model, batch = fresh_model(), random_batch()
    one, two = (loop.batch_loss(model, batch, 0.1, weight).smoothed for weight in (0.0, 5.0))
    assert two.item() == pytest.approx(one.item(), rel=1e-5)
    parameters = list(model.parameters())
    for a, b in zip(*(torch.autograd.grad(loss, parameters) for loss in (one, two)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("every", [0, 4])
def test_a_training_that_goes_on_beyond_its_end_knows_the_score_that_it_had_there(tmp_path, every):
    def records(steps, *scores):
        config = settings(steps=steps, checkpoint_every=9, evaluate_every=every, metric="loss")
        made = train(fresh_model(), OneBatch(random_batch()), config, tmp_path, evaluate=losses(*scores))
        return [(one.step, one.best) for one in made if isinstance(one, Evaluation)]

    assert records(3, 1.0) == [(3, True)]
    progress = read_progress(newest_state(tmp_path))
    assert (progress.step, progress.evaluated, progress.best, progress.best_step) == (3, 3, -1.0, 3)
    best = (tmp_path / "checkpoints" / "best.safetensors").read_bytes()
    assert records(5, *([1.5, 1.2] if every else [1.2])) == ([(4, False), (5, False)] if every else [(5, False)])
    assert (tmp_path / "checkpoints" / "best.safetensors").read_bytes() == best
