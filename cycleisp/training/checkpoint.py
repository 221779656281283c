"""Checkpoints: all of a run in one safetensors file, written whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cycleisp.models.storage import damaged, read_tensors, write_tensors

__all__ = [
    "Checkpoint",
    "adam_state",
    "load_checkpoint",
    "restore_adam_state",
    "save_checkpoint",
]

_FORMAT = "cycleisp-checkpoint/1"


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on as if it had never stopped.

    Attributes:
        stage: name of the stage.
        step: steps done.
        seconds: time spent so far, over all the times the run was resumed.
        loss_sum: of all steps since the last validation, whose mean the log tells.
        loss_count: how many steps these are.
        model: the networks' state dict.
        average: that of the running mean of the networks.
        optimizer: Adam's moments and step counts, named PARAMETER_INDEX.KEY.
    """

    stage: str
    step: int
    seconds: float
    loss_sum: float
    loss_count: int
    model: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to ``path``; a reader sees the old file or the new one, never a part.

    Raises:
        OutputError: where it cannot be written.
    """
    parts = {
        "model": checkpoint.model,
        "average": checkpoint.average,
        "optimizer": checkpoint.optimizer,
    }
    tensors = {
        f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()
    }
    facts = {
        "stage": checkpoint.stage,
        "step": str(checkpoint.step),
        "seconds": str(checkpoint.seconds),
        "loss_sum": str(checkpoint.loss_sum),
        "loss_count": str(checkpoint.loss_count),
    }
    write_tensors(path, tensors, {"format": _FORMAT, **facts})


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at ``path``.

    Raises:
        InputError: where it is not one of ours.
    """
    tensors, metadata = read_tensors(path, _FORMAT)
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
    try:
        for key, tensor in tensors.items():
            part, _, name = key.partition("/")
            parts[part][name] = tensor
        return Checkpoint(
            metadata["stage"],
            int(metadata["step"]),
            float(metadata["seconds"]),
            float(metadata["loss_sum"]),
            int(metadata["loss_count"]),
            **parts,
        )
    except (KeyError, ValueError) as error:
        raise damaged(path) from error


def adam_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as a flat mapping of tensors."""
    return {
        f"{index}.{key}": value
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }


def restore_adam_state(optimizer: torch.optim.Optimizer, flat: dict[str, Tensor]) -> None:
    """Put a state from ``adam_state`` back."""
    whole = optimizer.state_dict()
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in flat.items():
        index, _, key = name.partition(".")
        states.setdefault(int(index), {})[key] = tensor
    whole["state"] = states
    optimizer.load_state_dict(whole)
