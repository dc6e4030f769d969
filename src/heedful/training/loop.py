"""The training loop: one plain generator of records  (section 5)."""

import math
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn

from heedful import files
from heedful.data.batches import Batch, BatchStream, batch_of
from heedful.data.lines import pairs_by_length
from heedful.errors import HeedfulError
from heedful.model.encoder_decoder import EncoderDecoder
from heedful.model.weights import weights_of, write_weights
from heedful.text.vocabulary import PAD
from heedful.training.average import average_files, update_exponential
from heedful.training.divergence import LossWatch, not_a_number
from heedful.training.loss import Loss, consistent_cross_entropy, smoothed_cross_entropy
from heedful.training.muon import Muon, matrices_of
from heedful.training.precision import Mixed, dtype_of
from heedful.training.processes import broadcast, rank, world_size
from heedful.training.schedule import learning_rate
from heedful.training.settings import TrainingConfig
from heedful.training.state import (
    STATES,
    Progress,
    arithmetic,
    check_processes,
    load_state,
    name_of,
    newest_state,
    random_state,
    restore_random_state,
    save_state,
    step_of,
)


@dataclass(frozen=True)
class Step:
    """One optimizer step. `loss` is the smoothed one, `nll` the negative log-likelihood, in nats a target token.

    `tokens` counts the target tokens of all processes.
    """

    step: int
    steps: int
    loss: float
    nll: float
    rate: float
    tokens: int
    tokens_per_second: float
    epoch: int


@dataclass(frozen=True)
class Evaluation:
    """Scores on the development data: loss, perplexity, bleu, chrf or what the evaluator gives."""

    step: int
    scores: dict[str, float]
    best: bool


@dataclass(frozen=True)
class Saved:
    """The state was saved and can be resumed from."""

    step: int
    place: Path


@dataclass(frozen=True)
class Notice:
    """Something the user should know."""

    message: str


@dataclass(frozen=True)
class Ended:
    """Training ended: `reason` is "steps", "patience" or "interrupted"."""

    step: int
    reason: Literal["steps", "patience", "interrupted"]
    seconds: float


Record = Step | Evaluation | Saved | Notice | Ended
Evaluate = Callable[[EncoderDecoder], tuple[dict[str, float], list[str]]]


def train(
    model: EncoderDecoder,
    stream: BatchStream,
    config: TrainingConfig,
    state_folder: Path,
    *,
    accumulate: int = 1,
    evaluate: Evaluate | None = None,
    judged_by: str = "",
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Record]:
    """Train `model` in place, resuming from the newest state under `state_folder` if there is one.

    `evaluate` scores the model on development data, which `judged_by` is a digest of, and returns warnings beside the
    scores; where a checkpoint is due, it is saved before. `stop` is asked after each batch, and obeyed at the end of
    its step. On several processes (torchrun) each has its own `stream`, and gradients are summed over all.

    Raises:
        HeedfulError: the loss or the gradient is not a number; the last state on disk is good. Or the newest state is
            of another number of processes, of other text, or not the one that the first process sees.
    """
    device = next(model.parameters()).device
    _share_weights(model)
    optimizer = make_optimizer(model, config)
    progress, average = Progress(evaluated=0, judged_by=judged_by), _start_average(model, config)
    if place := newest_state(state_folder):
        check_processes(place)
        progress, random, average = load_state(place, model, optimizer)
        stream.restore(progress.data)
        restore_random_state(random[rank()], device)
        yield from _other_arithmetic(progress, arithmetic(device))
        yield from _other_judge(progress, judged_by)
    if broadcast(progress.step) != progress.step:
        raise HeedfulError(
            f"{state_folder}: holds step {progress.step:,}, but the first process's holds another; --out must be one "
            f"folder for all machines"
        )
    batches = iter(stream)
    mixed, watch = Mixed(model, config.precision), LossWatch()
    started = time.monotonic() - progress.seconds
    begun_at = progress.step, progress.evaluated

    def save(*, checkpoint: bool) -> Saved:
        if checkpoint:
            weights = average or weights_of(model)
            _keep_checkpoint(state_folder / "checkpoints", progress.step, weights, config.average)
        progress.seconds = time.monotonic() - started
        return _save(state_folder, progress, model, optimizer, average, device)

    while True:
        if evaluate and evaluation_is_due(config, progress):
            yield from _evaluate(model, evaluate, config, progress, average, state_folder)
        if progress.step >= config.steps or _patience_is_over(config, progress):
            break
        began = time.monotonic()
        step = progress.step + 1
        rate = _set_rate(optimizer, config, step, model.config.d_model)
        sums = _forward_backward(mixed, islice(batches, accumulate), config, stop)
        # the gradient of the mean over all tokens of this step, on all processes
        sum_over_processes(model, sums)
        smoothed, nll, counted, stops = sums.tolist()
        if not (math.isfinite(smoothed) and _learn(model, optimizer, config, counted)):
            raise HeedfulError(not_a_number(step, stream.epoch, stream.position, newest_state(state_folder)))
        mixed.renew()
        if average:
            update_exponential(average, weights_of(model), config.exponential_average, step)
        progress.step, progress.tokens, progress.data = step, progress.tokens + int(counted), stream.state()
        yield Step(
            step=step,
            steps=config.steps,
            loss=smoothed / counted,
            nll=nll / counted,
            rate=rate,
            tokens=int(counted),
            tokens_per_second=counted / (time.monotonic() - began),
            epoch=stream.epoch,
        )
        yield from map(Notice, watch.see(step, nll / counted))

        whole = _checkpoint_is_due(config, step)
        if whole or stops:
            yield save(checkpoint=whole)
        if stops and step < config.steps:
            yield Ended(step, "interrupted", progress.seconds)
            return
    if (progress.step, progress.evaluated) != begun_at and not _all_is_saved(config, progress):
        yield save(checkpoint=not _checkpoint_is_due(config, progress.step))
    yield from _end(config, progress, state_folder, time.monotonic() - started)


SUMS = ("smoothed loss", "negative log-likelihood", "target tokens", "wishes to stop")  # of a step, over processes


def _forward_backward(
    mixed: Mixed, batches: Iterable[Batch], config: TrainingConfig, stop: Callable[[], bool]
) -> Tensor:
    """Add up the gradients of some batches.

    Returns their SUMS  [4], in float64.
    """
    device = next(mixed.computing.parameters()).device
    losses, tokens, stops = [], 0, 0
    mixed.computing.train()  # it may have been evaluated
    for batch in batches:
        tokens += int((batch.target_out_BT != PAD).sum())
        loss = batch_loss(mixed.computing, batch.to(device), config.label_smoothing, config.consistency)
        loss.smoothed.backward()  # type: ignore[no-untyped-call]
        mixed.collect_gradients()
        losses.append(torch.stack(loss).detach())  # read once, at the end
        stops += stop()
    counts = torch.tensor([tokens, stops], dtype=torch.float64)
    return torch.cat([torch.stack(losses).cpu().double().sum(0), counts])


def batch_loss(model: EncoderDecoder, batch: Batch, smoothing: float, consistency: float = 0.0) -> Loss:
    """Return the summed loss of a batch; padding is left out before the projection.

    With `consistency` the batch passes through the model twice, side by side, and both passes shall agree.
    """
    passes = 2 if consistency else 1
    source_BS, lengths_B, target_BT = batch.source_BS, batch.source_lengths_B, batch.target_in_BT
    memory = model.encode(source_BS.repeat(passes, 1), lengths_B.repeat(passes))
    hidden_BTD = model.decode(target_BT.repeat(passes, 1), memory)
    real_BT = batch.target_out_BT != PAD
    target_N, weight_VD = batch.target_out_BT[real_BT], model.output.weight
    if not consistency:
        return smoothed_cross_entropy(hidden_BTD[real_BT], weight_VD, target_N, smoothing)
    first_ND, second_ND = (half_BTD[real_BT] for half_BTD in hidden_BTD.chunk(2))
    return consistent_cross_entropy(first_ND, second_ND, weight_VD, target_N, smoothing, consistency)


@torch.inference_mode()
def mean_loss(model: EncoderDecoder, sources: Sequence[list[int]], targets: Sequence[list[int]]) -> float:
    """Return the mean negative log-likelihood of a target token, END included, in nats; the model is in eval mode."""
    device = next(model.parameters()).device
    total = 0.0
    for chosen in pairs_by_length(sources, targets, 64):
        batch = batch_of([sources[i] for i in chosen], [targets[i] for i in chosen]).to(device)
        total += batch_loss(model, batch, 0.0).nll.item()
    return total / sum(map(len, targets))


def make_optimizer(model: EncoderDecoder, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return Adam as in section 5.3, AdamW, or Muon with AdamW, in torch's fused form."""
    settings: dict[str, Any] = {
        "betas": (config.beta1, config.beta2),
        "eps": config.epsilon,
        "weight_decay": 0.0 if config.optimizer == "adam" else config.weight_decay,
        "fused": True,
    }
    if config.optimizer == "muon":
        matrices = matrices_of(model, model.output)
        apart = set(matrices)
        others = [parameter for parameter in model.parameters() if parameter not in apart]
        products = dtype_of(config.precision, model.output.weight.device)
        return Muon(matrices, others, matrix_rate=config.matrix_rate, products=products, **settings)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(model.parameters(), **settings)


def _set_rate(optimizer: torch.optim.Optimizer, config: TrainingConfig, step: int, d_model: int) -> float:
    """Let the optimizer learn at this step's rate, and return it."""
    rate = learning_rate(config.schedule, step, config.steps, config.rate, config.warmup, config.decay, d_model)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def _learn(model: nn.Module, optimizer: torch.optim.Optimizer, config: TrainingConfig, tokens: float) -> bool:
    """Take a step by the mean of the summed gradients over so many tokens; return False if they are no numbers."""
    if not math.isfinite(scale_and_clip(model, 1.0 / tokens, config.clip)):
        return False
    optimizer.step()
    return True


def scale_and_clip(model: nn.Module, scale: float, clip: float) -> float:
    """Multiply the gradients by `scale`, then shrink them to norm `clip` if that is above 0; return their norm."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))) * scale
    factor = scale * (clip / norm if 0 < clip < norm else 1.0)
    torch._foreach_mul_(gradients, factor)
    return norm


def _checkpoint_is_due(config: TrainingConfig, step: int) -> bool:
    return step == config.steps or step % config.checkpoint_every == 0


def _all_is_saved(config: TrainingConfig, progress: Progress) -> bool:
    """Whether the end was: not where patience came between two checkpoints, nor what a last evaluation found."""
    return _checkpoint_is_due(config, progress.step) and progress.evaluated != progress.step


def evaluation_is_due(config: TrainingConfig, progress: Progress) -> bool:
    """Return whether the present step is one to evaluate, and has not been."""
    step, every = progress.step, config.evaluate_every
    return step > (progress.evaluated or 0) and (step == config.steps or (every > 0 and step % every == 0))


def _patience_is_over(config: TrainingConfig, progress: Progress) -> bool:
    return 0 < config.patience <= progress.evaluations_without_gain


def _start_average(model: nn.Module, config: TrainingConfig) -> dict[str, Tensor]:
    if not config.exponential_average:
        return {}
    return {name: tensor.clone() for name, tensor in weights_of(model).items()}


def _evaluate(
    model: EncoderDecoder,
    evaluate: Evaluate,
    config: TrainingConfig,
    progress: Progress,
    average: dict[str, Tensor],
    state_folder: Path,
) -> Iterator[Record]:
    """Score the model (its exponential average, if there is one), remember the best, pass warnings on."""
    weights = weights_of(model)
    trained = {name: tensor.clone() for name, tensor in weights.items()} if average else {}
    _assign(weights, average)
    scores, warnings = evaluate(model.eval())
    # the first process's score on all: where they differed in a last digit, one might end by patience, and others wait
    score = broadcast(-scores["loss"] if config.metric == "loss" else scores.get(config.metric, -scores["loss"]))
    better = progress.best is None or score > progress.best
    if better:
        progress.best, progress.best_step, progress.evaluations_without_gain = score, progress.step, 0
        if rank() == 0:
            write_weights(state_folder / "checkpoints" / "best.safetensors", weights)
    else:
        progress.evaluations_without_gain += 1
    progress.evaluated = progress.step
    _assign(weights, trained)
    yield Evaluation(progress.step, scores, better)
    yield from map(Notice, warnings)


@torch.no_grad()
def _assign(weights: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        weights[name].copy_(value)


def _keep_checkpoint(folder: Path, step: int, weights: dict[str, Tensor], most: int) -> None:
    if rank() != 0:
        return
    write_weights(folder / f"{name_of(step)}.safetensors", weights)
    for old in sorted(folder.glob(f"{STATES}.safetensors"))[: -max(most, 1)]:
        files.remove(old)


def forget_unsaved_checkpoints(state_folder: Path) -> None:
    """Remove checkpoints after the newest state: there was no room for theirs, and an edited run may not come by."""
    state = newest_state(state_folder)
    for path in (state_folder / "checkpoints").glob(f"{STATES}.safetensors"):
        if step_of(path) > (step_of(state) if state else 0):
            files.remove(path)


def last_checkpoints(folder: Path, most: int) -> list[Path]:
    """Return the newest checkpoints in `folder`, oldest first."""
    return sorted(folder.glob(f"{STATES}.safetensors"))[-most:]


def final_weights(state_folder: Path, config: TrainingConfig) -> dict[str, Tensor]:
    """Return the weights to translate with: the exponential average, else the mean of the last checkpoints.

    Before the first checkpoint there are none.
    """
    return average_files(_averaged(state_folder, config))


def _averaged(state_folder: Path, config: TrainingConfig) -> list[Path]:
    """Return the checkpoints that the final weights are made of, none from the first half of the steps so far.

    The paper's five are the last 7 % of its steps; in a short training as many reach back to what had hardly learned.
    """
    most = 1 if config.exponential_average else max(config.average, 1)
    found = last_checkpoints(state_folder / "checkpoints", most)
    return [path for path in found if 2 * step_of(path) > step_of(found[-1])]


def _save(
    folder: Path,
    progress: Progress,
    model: EncoderDecoder,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
    device: torch.device,
) -> Saved:
    progress.arithmetic, random = arithmetic(device), random_state(device)
    gathered = [random] * world_size()
    if world_size() > 1:
        distributed.all_gather_object(gathered, random)
    place = folder / name_of(progress.step)
    if rank() == 0:
        place = save_state(folder, progress, model, optimizer, torch.stack(gathered), average)
    return Saved(progress.step, place)


def _share_weights(model: nn.Module) -> None:
    """Begin with the first process's weights on all: other processors draw and round otherwise."""
    if world_size() > 1:
        for parameter in model.parameters():
            distributed.broadcast(parameter.detach(), src=0)


def sum_over_processes(model: nn.Module, sums: Tensor) -> None:
    """Sum the gradients of `model`, and `sums`, over all processes, in place."""
    if world_size() == 1:
        return
    # a layer that layer dropout left out here may have been present elsewhere
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        parameter.grad = gradient
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    for gradient, summed in zip(
        gradients, torch.split(flat, [gradient.numel() for gradient in gradients]), strict=True
    ):
        gradient.copy_(summed.view_as(gradient))
    device_sums = sums.to(flat.device)
    distributed.all_reduce(device_sums)
    sums.copy_(device_sums)


def _other_arithmetic(progress: Progress, now: str) -> Iterator[Record]:
    if progress.arithmetic not in ("", now):
        yield Notice(
            f"this training was saved with {progress.arithmetic}, and goes on with {now}: as good, but not the same to "
            f"the last bit as if it had never been stopped"
        )


def _other_judge(progress: Progress, now: str) -> Iterator[Record]:
    """Forget the best score if it is one on other development data."""
    if progress.judged_by not in ("", now) and progress.best is not None:
        progress.best, progress.best_step, progress.evaluations_without_gain = None, 0, 0
        yield Notice("the development text is not that of the scores so far: the best one, and patience, begin anew")
    progress.judged_by = now


def _end(config: TrainingConfig, progress: Progress, state_folder: Path, seconds: float) -> Iterator[Record]:
    """Tell why it ends, and first of a best step that the final weights have nothing of."""
    kept = _averaged(state_folder, config)
    if progress.best is not None and kept and progress.best_step < step_of(kept[0]):
        best = shlex.quote(str(state_folder / "checkpoints" / "best.safetensors"))
        yield Notice(
            f"the development {config.metric} was best at step {progress.best_step:,}, before the checkpoints that the "
            f"weights are made of; for those of then: heedful average {shlex.quote(str(state_folder.parent))} "
            f"--weights {best} --out NEW"
        )
    yield Ended(progress.step, "steps" if progress.step >= config.steps else "patience", seconds)
