"""How to train: settings, without the training."""

from dataclasses import dataclass
from typing import Literal

from heedful.config import setting
from heedful.training.schedule import Schedule

Metric = Literal["bleu", "chrf", "loss"]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class TrainingConfig:
    """How to train; the defaults are the paper's for its base model."""

    steps: int = setting(100_000, "Steps to train for", least=1, most=99_999_999)
    minutes: float = setting(
        0.0, "Set the number of steps so that training takes about so long here; 0 = off", least=0, most=525_600
    )
    optimizer: Literal["adam", "adamw", "muon"] = setting(
        "adam", "Adam, Adam with decoupled weight decay, or Muon for a Transformer's matrices beside it"
    )
    beta1: float = setting(0.9, "Adam's decay of the mean gradient", least=0, most=0.99999)
    beta2: float = setting(0.98, "Adam's decay of the mean squared gradient", least=0, most=0.99999)
    epsilon: float = setting(1e-9, "Adam's epsilon", least=1e-30)
    weight_decay: float = setting(
        0.0,
        "Decoupled weight decay of all parameters, norms and biases too",
        least=0,
        only={"optimizer": ["adamw", "muon"]},
    )
    matrix_rate: float = setting(
        1.0, "Learning rate of the matrices, as a multiple of that of the rest", least=0, only={"optimizer": ["muon"]}
    )
    schedule: Schedule = setting("paper", "Learning rate: equation 3, warmup-stable-decay, or cosine")
    rate: float = setting(1.0, "Peak learning rate, as 0.001; with the paper's schedule a factor, as 1", least=0)
    warmup: int = setting(4000, "Steps over which the learning rate rises", least=0)
    decay: float = setting(
        0.2,
        "Last share of the steps, over which the rate falls to zero",
        least=0,
        most=1,
        only={"schedule": ["stable-decay"]},
    )
    clip: float = setting(0.0, "Largest norm of the gradient; 0 = no clipping", least=0)
    label_smoothing: float = setting(0.1, "Label smoothing (section 5.4)", least=0, most=1)
    consistency: float = setting(
        0.0,
        "R-Drop: weight of the divergence of two passes under different dropout, as 4; 0 = one pass",
        least=0,
    )
    precision: Precision = setting(
        "auto", "Compute in float32, in bfloat16 (weights stay float32), or in which of them is faster here"
    )
    average: int = setting(
        5,
        "The final weights are the mean of so many last checkpoints, of the second half alone (section 6.1)",
        least=0,
    )
    exponential_average: float = setting(
        0.0, "Decay of an exponential average to use instead, as 0.999; 0 = off", least=0, most=1
    )
    stored: Literal["float32", "bfloat16"] = setting(
        "float32", "Type of the final weights on disk; bfloat16 halves the model folder"
    )
    checkpoint_every: int = setting(1000, "Steps between checkpoints", least=1)
    evaluate_every: int = setting(
        1000, "Steps between evaluations on the development data; 0 = only at the end", least=0
    )
    metric: Metric = setting("bleu", "Development score that patience goes by, and that tells which step was best")
    patience: int = setting(0, "Stop after so many evaluations without a better score; 0 = never", least=0)
    seed: int = setting(1, "Seed of initialisation and dropout", least=0, most=2**63 - 1)
    threads: int = setting(0, "CPU threads; 0 = all cores", least=0)
