"""Learning rates by step  (section 5.3)."""

import math
from typing import Literal

Schedule = Literal["paper", "stable-decay", "cosine"]


def learning_rate(
    schedule: Schedule, step: int, steps: int, rate: float, warmup: int, decay: float, d_model: int
) -> float:
    """Return the learning rate of `step`, counted from 1 to `steps`.

    - "paper": rate * d_model^-0.5 * min(step^-0.5, step * warmup^-1.5)  (section 5.3, equation 3)
    - "stable-decay": up to `rate` in `warmup` steps, constant, then linearly to zero in the last share `decay`
    - "cosine": up to `rate` in `warmup` steps, then half a cosine to zero
    """
    if schedule == "paper":
        return float(rate * d_model**-0.5 * min(step**-0.5, step * max(warmup, 1) ** -1.5))
    warmed = min(1.0, step / max(warmup, 1))
    left = (steps - step + 1) / max(steps, 1)  # share of the training that remains, this step included
    if schedule == "cosine":
        passed = max(0.0, (step - warmup) / max(steps - warmup, 1))
        return rate * warmed * 0.5 * (1.0 + math.cos(math.pi * min(passed, 1.0)))
    return rate * min(warmed, left / decay if decay else 1.0)
