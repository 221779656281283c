"""The loop that every stage runs, read from top to bottom.

A batch is a pure function of (seed, step, index in the batch): nothing about the stream of data
needs to be saved for a run to be resumed exactly where it stopped, nor for ranks to share a batch.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cycleisp.models.storage import save_network, write_tensors
from cycleisp.training.checkpoint import (
    Checkpoint,
    adam_state,
    load_checkpoint,
    restore_adam_state,
    save_checkpoint,
)
from cycleisp.training.distributed import (
    Ranks,
    joined_ranks,
    local_device,
    ranks_of_environment,
)
from cycleisp.training.run_folder import (
    append_to_log,
    begin_run_folder,
    end_run_folder,
    rewind_log,
)
from cycleisp.training.run_settings import RunSettings
from cycleisp.training.stage import Stage
from cycleisp_runtime.errors import SettingsError, TrainingError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["Progress", "learning_rate_factor", "train"]

_CHECKPOINT = "checkpoint.safetensors"
_FAILED_BATCH = "failed_batch.safetensors"


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: steps done.
        steps: steps in all.
        loss: of the last step, of this rank's share of the batch; None before the first.
        seconds: time spent so far, over all the times the run was resumed.
        quality: what the stage's ``validate`` gives, right after a validation; else None.
    """

    step: int
    steps: int
    loss: float | None
    seconds: float
    quality: dict[str, float] | None


def train(
    stage: Stage, settings: RunSettings, *, resume: bool, report: Callable[[Progress], None]
) -> list[Path]:
    """The files of the averaged networks, after the last step; on rank 0, which writes them.

    Stopped anywhere and resumed, a run ends with the same bits on a CPU as an unbroken one. Started
    by torchrun, the ranks share every batch. Sets torch's number of threads.

    Args:
        stage: what learns.
        settings: how.
        resume: go on from the checkpoint in the output folder, where there is one.
        report: called after every step, on rank 0 alone.

    Raises:
        SettingsError: where the output folder holds a run and ``resume`` is off, or a run that
            these settings do not continue.
        InputError: where the checkpoint cannot be read.
        OutputError: where the output folder cannot be written.
        TrainingError: where the loss is no number, another rank is gone, or memory runs out.
    """
    ranks = ranks_of_environment()
    if settings.batch % ranks.count:
        raise SettingsError(
            "the ranks cannot share a batch evenly",
            subject="batch",
            met=settings.batch,
            wanted=f"a multiple of {ranks.count}",
        )
    torch.set_num_threads(settings.threads)
    device = local_device(settings.device)
    try:
        with joined_ranks(device):
            return _train(stage.to(device), settings, ranks, device, resume, report)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "not enough memory on the GPU",
            subject=settings.output,
            met=f"batch {settings.batch}",
            hint="resume with a smaller batch or size, or on more ranks",
        ) from error


def _train(
    stage: Stage,
    settings: RunSettings,
    ranks: Ranks,
    device: torch.device,
    resume: bool,
    report: Callable[[Progress], None],
) -> list[Path]:
    checkpoint = _checkpoint_to_resume(stage, settings, resume)
    average = copy.deepcopy(stage.networks).eval()
    optimizer = torch.optim.Adam(
        [parameter for parameter in stage.networks.parameters() if parameter.requires_grad],
        settings.learning_rate,
        betas=(0.9, settings.beta2),
        fused=True,  # a quarter of the time of a loop over many small tensors
    )
    first_step, earlier_seconds = 0, 0.0
    loss_sum, loss_count = 0.0, 0
    if checkpoint is not None:
        stage.networks.load_state_dict(checkpoint.model)
        average.load_state_dict(checkpoint.average)
        restore_adam_state(optimizer, checkpoint.optimizer)
        first_step, earlier_seconds = checkpoint.step, checkpoint.seconds
        loss_sum, loss_count = checkpoint.loss_sum, checkpoint.loss_count
    if ranks.first and first_step < settings.steps:
        begin_run_folder(settings, stage.name, stage.manifest())
        rewind_log(settings.output, -1 if checkpoint is None else first_step)
    scalars = _tensorboard(settings) if ranks.first else None

    started = time.perf_counter()
    if first_step == 0 and ranks.first:
        untrained = stage.validate(average)
        _log(settings.output, scalars, 0, untrained, 0.0)
        report(Progress(0, settings.steps, None, 0.0, untrained))
    steps = range(first_step, settings.steps)
    for step, drawn in zip(steps, _batches(stage, settings, ranks, steps), strict=True):
        batch = {name: tensor.to(device, non_blocking=True) for name, tensor in drawn.items()}
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * learning_rate_factor(step, settings)
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.bfloat16):
            loss: Tensor = stage(batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise _no_number(settings.output, batch, step, value)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        ranks.average_gradients(stage.networks.parameters())
        nn.utils.clip_grad_norm_(stage.networks.parameters(), settings.gradient_norm, foreach=True)
        optimizer.step()
        _update_average(average, stage.networks, min(settings.average, (1 + step) / (10 + step)))

        done = step + 1
        last = done == settings.steps
        validates = last or done % settings.validation_steps == 0
        loss_sum, loss_count = loss_sum + value, loss_count + 1
        if validates:
            mean_loss = ranks.mean(loss.new_tensor(loss_sum / loss_count))
            loss_sum, loss_count = 0.0, 0
        if not ranks.first:
            continue
        quality = stage.validate(average) if validates else None
        seconds = earlier_seconds + time.perf_counter() - started
        # The log comes first: a run that is resumed takes out what its checkpoint does not know.
        if quality is not None:
            _log(settings.output, scalars, done, {"loss": mean_loss, **quality}, seconds)
        if last or done % settings.checkpoint_steps == 0:
            save_checkpoint(
                settings.output / _CHECKPOINT,
                Checkpoint(
                    stage.name,
                    done,
                    seconds,
                    loss_sum,
                    loss_count,
                    stage.networks.state_dict(),
                    average.state_dict(),
                    adam_state(optimizer),
                ),
            )
        report(Progress(done, settings.steps, value, seconds, quality))

    files = []
    if ranks.first:
        if first_step < settings.steps:
            end_run_folder(settings.output)
        for name, network in average.items():
            files.append(settings.output / f"{name}.safetensors")
            save_network(files[-1], network, name, settings.size)
    ranks.wait()  # The next stage of every rank starts from these files.
    return files


def learning_rate_factor(step: int, settings: RunSettings) -> float:
    """Warm-up, constant, linear decay: the factor on the learning rate of this step (from 0)."""
    decay_steps = max(1.0, settings.decay * settings.steps)
    rise = (step + 1) / max(1, settings.warmup_steps)
    fall = (settings.steps - step) / decay_steps
    return min(1.0, rise, fall)


class _Batches(Dataset[dict[str, Tensor]]):
    """Item ``step`` is this rank's share of the batch of that step."""

    def __init__(self, stage: Stage, settings: RunSettings, share: Sequence[int]) -> None:
        self._draw = stage.draw
        self._seed = settings.seed
        self._share = share

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        samples = [
            self._draw(np.random.default_rng([self._seed, step, index])) for index in self._share
        ]
        return {
            name: torch.from_numpy(np.stack([sample[name] for sample in samples]))
            for name in samples[0]
        }


def _batches(
    stage: Stage, settings: RunSettings, ranks: Ranks, steps: range
) -> DataLoader[dict[str, Tensor]]:
    return DataLoader(
        _Batches(stage, settings, ranks.share(settings.batch)),
        batch_size=None,
        sampler=steps,
        generator=torch.Generator(),  # else it draws a seed from torch's own
        num_workers=settings.workers,
        # Two batches ahead hide a slow one; more only cost memory.
        prefetch_factor=2 if settings.workers else None,
        # Forked workers share the photographs in memory; a spawned one would copy them.
        multiprocessing_context="fork" if settings.workers else None,
    )


def _checkpoint_to_resume(stage: Stage, settings: RunSettings, resume: bool) -> Checkpoint | None:
    """The checkpoint in the run's folder, where these settings go on from it."""
    path = settings.output / _CHECKPOINT
    if not path.exists():
        return None
    if not resume:
        raise SettingsError(
            "the folder already holds a run", subject=settings.output, hint="give --resume"
        )
    checkpoint = load_checkpoint(path)
    shapes = {name: tensor.shape for name, tensor in stage.networks.state_dict().items()}
    fits = {name: tensor.shape for name, tensor in checkpoint.model.items()} == shapes
    if checkpoint.stage != stage.name or not fits:
        raise SettingsError(
            "the run in the folder trains another network",
            subject=settings.output,
            met=f"stage {checkpoint.stage}" + ("" if fits else ", networks of another size"),
            wanted=f"stage {stage.name}, size {settings.size}",
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
    return checkpoint


def _no_number(folder: Path, batch: dict[str, Tensor], step: int, loss: float) -> TrainingError:
    """The error of a loss that is NaN or infinite, with its batch kept for a look at it."""
    path = folder / _FAILED_BATCH
    write_tensors(
        path,
        batch,
        {"format": "cycleisp-batch/1", "step": str(step)},
    )
    return TrainingError(
        "the loss is no number",
        subject=f"step {step}",
        met=loss,
        hint=f"look at the batch in {path}; then resume with a lower learning_rate",
    )


def _update_average(average: nn.Module, model: nn.Module, keep: float) -> None:
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)


def _tensorboard(settings: RunSettings) -> SummaryWriter | None:
    if not settings.tensorboard:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SettingsError(
            "the package of TensorBoard is missing",
            subject="tensorboard",
            hint="pip install tensorboard, or leave this setting away",
        ) from error
    return SummaryWriter(settings.output / "tensorboard")


def _log(
    folder: Path,
    scalars: SummaryWriter | None,
    step: int,
    figures: dict[str, float],
    seconds: float,
) -> None:
    rounded = {name: round(value, 6 if name == "loss" else 3) for name, value in figures.items()}
    append_to_log(folder, {"step": step, "seconds": round(seconds, 1), **rounded})
    if scalars is not None:
        for name, value in figures.items():
            scalars.add_scalar(name, value, step)
        scalars.flush()
