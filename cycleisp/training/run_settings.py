"""What every stage's run is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cycleisp.training.settings import check_ranges

__all__ = ["RunSettings"]


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What the loop needs to know, whatever is trained.

    Raises:
        SettingsError: where a value is out of its range.

    Attributes:
        output: folder of the run: settings, log, checkpoint, networks.
        initial: folder of networks to start from, such as an earlier run's; None for fresh ones.
        size: of the networks, as ``create_model`` knows them.
        steps: optimiser steps in all.
        batch: patches per step, over all ranks.
        learning_rate: of Adam, after warm-up.
        warmup_steps: over which the rate rises linearly.
        decay: share of the steps, at the end, over which the rate falls linearly to zero. Until
            then it is constant, so a run can be resumed with more steps and loses nothing.
        beta2: Adam's second beta; the first is 0.9.
        gradient_norm: gradients are scaled down to this norm.
        average: weight of the past in the running mean of the weights, which is what is kept.
        validation_steps: steps between two validations.
        checkpoint_steps: steps between two checkpoints.
        seed: of the initialisation and of all data.
        device: ``cpu``, ``cuda``, or ``auto`` for CUDA where there is a GPU.
        threads: of torch on the CPU.
        workers: processes that prepare batches ahead of the step; 0 for none.
        bfloat16: run convolutions in bfloat16 (autocast); weights stay float32.
        tensorboard: also write the log for TensorBoard, whose package must be installed.
    """

    output: Path
    initial: Path | None = None
    size: str = "small"
    steps: int = 20_000
    batch: int = 8
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    decay: float = 0.35
    beta2: float = 0.999
    gradient_norm: float = 1.0
    average: float = 0.999
    validation_steps: int = 2_000
    checkpoint_steps: int = 500
    seed: int = 0
    device: str = "auto"
    threads: int = 1
    workers: int = 1
    bfloat16: bool = True
    tensorboard: bool = False

    def __post_init__(self) -> None:
        check_ranges(
            self,
            {
                "steps": (1 <= self.steps <= 10**9, "1 to 1000000000"),
                "batch": (self.batch >= 1, "at least 1"),
                "learning_rate": (0 < self.learning_rate < 1, "above 0 and below 1"),
                "warmup_steps": (self.warmup_steps >= 0, "at least 0"),
                "decay": (0 <= self.decay <= 1, "0 to 1"),
                "beta2": (0 <= self.beta2 < 1, "at least 0 and below 1"),
                "gradient_norm": (self.gradient_norm > 0, "above 0"),
                "average": (0 <= self.average < 1, "at least 0 and below 1"),
                "validation_steps": (self.validation_steps >= 1, "at least 1"),
                "checkpoint_steps": (self.checkpoint_steps >= 1, "at least 1"),
                "seed": (0 <= self.seed < 2**63, "0 to 2**63 - 1"),
                "device": (self.device in {"auto", "cpu", "cuda"}, "auto, cpu or cuda"),
                "threads": (1 <= self.threads <= 1024, "1 to 1024"),
                "workers": (0 <= self.workers <= 64, "0 to 64"),
            },
        )
