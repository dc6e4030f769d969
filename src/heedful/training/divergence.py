"""When training goes astray: what is said of a loss that climbs, and of a loss or gradient that is not a number."""

import math
from dataclasses import dataclass, field
from pathlib import Path

INTERVAL = 50  # steps whose losses are averaged: single batches differ
_NATS = 1.0  # the mean of a healthy training does not rise by so much

_REMEDY = "Lower training.rate, lengthen training.warmup, or set training.clip 1.0"


@dataclass
class LossWatch:
    """Tells, once, that the loss climbs: a slow divergence is a number at every step and would pass in silence.

    Means over some steps are compared with the lowest before. A resumed training begins with none.
    """

    losses: list[float] = field(default_factory=list)
    lowest: float = math.inf
    lowest_step: int = 0
    told: bool = False

    def see(self, step: int, loss: float) -> list[str]:
        """Take the loss of a step, in nats a token; return what the user should know now, which is mostly nothing."""
        self.losses.append(loss)
        if self.told or len(self.losses) < INTERVAL:
            return []
        mean = sum(self.losses) / len(self.losses)
        self.losses.clear()
        if mean < self.lowest:
            self.lowest, self.lowest_step = mean, step
        self.told = mean > self.lowest + _NATS
        if not self.told:
            return []
        return [
            f"the loss climbs: {self.lowest:.2f} nats a token up to step {self.lowest_step:,}, {mean:.2f} now at step "
            f"{step:,}; training has likely diverged. {_REMEDY}, and begin again"
        ]


def not_a_number(step: int, epoch: int, batch: int, good: Path | None) -> str:
    """Return what ends a training whose loss or gradient is not a number; `good` is its last state on disk."""
    kept = f"the last good state is kept in {good}" if good else "no state was saved yet"
    return f"step {step} (epoch {epoch}, batch {batch}): the loss or its gradient is not a number; {kept}. {_REMEDY}"
