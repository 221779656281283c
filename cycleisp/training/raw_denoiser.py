"""Stage: a small RAW denoiser from clean photographs.

Photographs are turned back into linear RAW by random inverse camera pipelines, noise of the whole
law is drawn, and the network learns to take it off. One loop, read from top to bottom.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cycleisp.data.photographs import SampledPairs, load_photographs
from cycleisp.evaluation.validation import validate, validation_planes
from cycleisp.losses import harm_penalty, noise_normalised_loss
from cycleisp.models import create_model
from cycleisp.models.edge import EdgeDenoiser
from cycleisp.noise import UNPROCESSING
from cycleisp.training.checkpoint import (
    Checkpoint,
    adam_state,
    load_checkpoint,
    restore_adam_state,
    save_checkpoint,
    save_weights,
)
from cycleisp.training.settings import settings_as_yaml
from cycleisp_runtime.errors import OutputError, SettingsError

__all__ = ["Progress", "RawDenoiserSettings", "train_raw_denoiser"]


@dataclass(frozen=True)
class RawDenoiserSettings:
    """What a run does.

    Raises:
        SettingsError: where a value is out of its range.

    Attributes:
        photographs: folder of clean pictures.
        output: folder of the run: settings, log, checkpoint, weights.
        pattern: which pictures of the folder are used.
        size: ``tiny`` or ``edge``.
        steps: optimiser steps in all.
        batch: patches per step.
        patch: side of a patch in packed samples; even.
        learning_rate: of Adam, after warm-up.
        warmup_steps: over which the rate rises linearly.
        decay: share of the steps, at the end, over which the rate falls linearly to zero. Until
            then it is constant, so a run can be resumed with more steps and loses nothing.
        harm: weight of the penalty on patches that come out worse than they went in.
        gradient_norm: gradients are scaled down to this norm.
        average: weight of the past in the running mean of the weights, which is what is kept.
        shot_low: smallest shot drawn, normalised.
        shot_high: largest shot drawn, normalised.
        held_out: every n-th picture is kept for validation.
        validation_steps: steps between two validations.
        checkpoint_steps: steps between two checkpoints.
        seed: of the initialisation and of all data.
        threads: of torch on the CPU.
        bfloat16: run convolutions in bfloat16 (autocast); weights stay float32.
    """

    photographs: Path
    output: Path
    pattern: str = "*"
    size: str = "edge"
    steps: int = 60_000
    batch: int = 8
    patch: int = 64
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    decay: float = 0.35
    harm: float = 3.0
    gradient_norm: float = 0.5
    average: float = 0.999
    shot_low: float = 2e-5
    shot_high: float = 2e-2
    held_out: int = 10
    validation_steps: int = 2_000
    checkpoint_steps: int = 500
    seed: int = 0
    threads: int = 1
    bfloat16: bool = True

    def __post_init__(self) -> None:
        ranges = {
            "steps": (self.steps >= 1, "at least 1"),
            "batch": (self.batch >= 1, "at least 1"),
            "patch": (self.patch >= 16 and self.patch % 2 == 0, "even and at least 16"),
            "learning_rate": (0 < self.learning_rate < 1, "above 0 and below 1"),
            "warmup_steps": (self.warmup_steps >= 0, "at least 0"),
            "decay": (0 <= self.decay <= 1, "0 to 1"),
            "harm": (self.harm >= 0, "at least 0"),
            "gradient_norm": (self.gradient_norm > 0, "above 0"),
            "average": (0 <= self.average < 1, "at least 0 and below 1"),
            "shot_low": (0 < self.shot_low <= self.shot_high, "above 0, at most shot_high"),
            "shot_high": (self.shot_high < 1, "below 1"),
            "held_out": (self.held_out >= 2, "at least 2"),
            "validation_steps": (self.validation_steps >= 1, "at least 1"),
            "checkpoint_steps": (self.checkpoint_steps >= 1, "at least 1"),
            "seed": (self.seed >= 0, "at least 0"),
            "threads": (self.threads >= 1, "at least 1"),
        }
        for name, (holds, wanted) in ranges.items():
            if not holds:
                raise SettingsError(
                    "out of range", subject=name, met=getattr(self, name), wanted=wanted
                )


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: steps done.
        steps: steps in all.
        loss: of the last step, in units of the noise variance.
        seconds: time spent so far, over all the times the run was resumed.
        quality: what ``validate`` gives, right after a validation; else None.
    """

    step: int
    steps: int
    loss: float
    seconds: float
    quality: dict[str, float] | None


def learning_rate_factor(step: int, settings: RawDenoiserSettings) -> float:
    """Warm-up, constant, linear decay: the factor on the learning rate of this step (from 0)."""
    decay_steps = max(1.0, settings.decay * settings.steps)
    rise = (step + 1) / max(1, settings.warmup_steps)
    fall = (settings.steps - step) / decay_steps
    return min(1.0, rise, fall)


def train_raw_denoiser(
    settings: RawDenoiserSettings, *, resume: bool, report: Callable[[Progress], None]
) -> Path:
    """The file of the averaged weights, after the last step.

    Stopped anywhere and resumed, a run ends with the same bits on a CPU as an unbroken one. Sets
    torch's number of threads.

    Args:
        settings: what to do.
        resume: go on from the checkpoint in the output folder, where there is one.
        report: called after every step.

    Raises:
        SettingsError: where the output folder holds a run and ``resume`` is off, or a run that
            these settings do not continue.
        InputError: where pictures or checkpoint cannot be read.
        OutputError: where the output folder cannot be written.
    """
    torch.set_num_threads(settings.threads)
    checkpoint_file = settings.output / "checkpoint.safetensors"
    if checkpoint_file.exists() and not resume:
        raise SettingsError(
            "the folder already holds a run", subject=settings.output, hint="give --resume"
        )
    pictures = load_photographs(settings.photographs, settings.pattern, 4 * settings.patch)
    names = sorted(pictures)
    held_out = names[settings.held_out // 2 :: settings.held_out]
    kept = [pictures[name] for name in names if name not in held_out]
    if not kept or not held_out:
        raise SettingsError(
            "too few pictures to hold some out",
            subject=settings.photographs,
            met=len(names),
            wanted=f"at least {settings.held_out}",
        )
    validation = [validation_planes(pictures[name]) for name in held_out]
    law = dataclasses.replace(UNPROCESSING, low=settings.shot_low, high=settings.shot_high)
    pairs = SampledPairs(kept, law, settings.batch, settings.patch, settings.seed)

    model = _fresh_model(settings)
    average = copy.deepcopy(model).eval()
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.0
    )
    first_step, earlier_seconds = 0, 0.0
    if checkpoint_file.exists():
        checkpoint = load_checkpoint(checkpoint_file)
        _check_continuation(checkpoint, model, settings)
        model.load_state_dict(checkpoint.model)
        average.load_state_dict(checkpoint.average)
        restore_adam_state(optimizer, checkpoint.optimizer)
        first_step, earlier_seconds = checkpoint.step, checkpoint.seconds

    with _written(settings.output):
        settings.output.mkdir(parents=True, exist_ok=True)
        (settings.output / "settings.yaml").write_text(settings_as_yaml(settings), "utf-8")
        (settings.output / "pictures.json").write_text(
            json.dumps(_manifest(pictures, held_out), indent=1), "utf-8"
        )

    started = time.perf_counter()
    for step in range(first_step, settings.steps):
        batch = pairs.at(step)
        clean, noisy, variance, noise_scale = (
            torch.from_numpy(array)
            for array in (batch.clean, batch.noisy, batch.variance, batch.noise_scale)
        )
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * learning_rate_factor(step, settings)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
            output = model(noisy, variance, noise_scale)
        output = output.float()
        loss = noise_normalised_loss(output, clean, noise_scale)
        loss = loss + settings.harm * harm_penalty(output, noisy, clean, noise_scale)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_norm)
        optimizer.step()
        _update_average(average, model, min(settings.average, (1 + step) / (10 + step)))

        done = step + 1
        last = done == settings.steps
        seconds = earlier_seconds + time.perf_counter() - started
        if last or done % settings.checkpoint_steps == 0:
            save_checkpoint(
                checkpoint_file,
                Checkpoint(
                    done,
                    seconds,
                    model.state_dict(),
                    average.state_dict(),
                    adam_state(optimizer),
                ),
            )
        quality = None
        if last or done % settings.validation_steps == 0:
            quality = validate(average, validation)
        progress = Progress(done, settings.steps, float(loss.detach()), seconds, quality)
        if quality is not None:
            _log(settings.output / "log.jsonl", progress)
        report(progress)

    weights = settings.output / "weights.safetensors"
    save_weights(weights, average, "raw_denoiser", settings.size)
    return weights


def _fresh_model(settings: RawDenoiserSettings) -> EdgeDenoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = create_model("raw_denoiser", settings.size)
    if not isinstance(model, EdgeDenoiser):
        raise SettingsError(
            "this stage trains edge denoisers only",
            subject="size",
            met=settings.size,
            wanted="edge or tiny",
        )
    return model


def _check_continuation(
    checkpoint: Checkpoint, model: nn.Module, settings: RawDenoiserSettings
) -> None:
    """Nothing, where the checkpoint is of this network and not past the last step."""
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if {name: tensor.shape for name, tensor in checkpoint.model.items()} != shapes:
        raise SettingsError(
            "the run in the folder trains another network",
            subject=settings.output,
            wanted=f"size {settings.size}",
            hint="give the run's own size, which its settings.yaml holds, or another output",
        )
    if checkpoint.step > settings.steps:
        raise SettingsError(
            "the run in the folder is past its last step",
            subject=settings.output,
            met=checkpoint.step,
            wanted=f"at most {settings.steps}",
            hint="give more steps",
        )


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    """OSErrors of the block as those of the run's folder."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            "the run's folder cannot be written", subject=folder, met=error.strerror
        ) from error


def _update_average(average: nn.Module, model: nn.Module, keep: float) -> None:
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)


def _manifest(pictures: dict[str, npt.NDArray[np.uint8]], held_out: list[str]) -> dict[str, object]:
    return {
        "trained_on": {
            name: hashlib.sha256(picture.tobytes()).hexdigest()
            for name, picture in pictures.items()
            if name not in held_out
        },
        "held_out": held_out,
    }


def _log(path: Path, progress: Progress) -> None:
    record = {
        "step": progress.step,
        "loss": round(progress.loss, 6),
        "seconds": round(progress.seconds, 1),
        **{key: round(value, 3) for key, value in (progress.quality or {}).items()},
    }
    with _written(path.parent), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
