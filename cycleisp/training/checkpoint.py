"""A checkpoint: one safetensors file, written whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cycleisp_runtime.errors import InputError

__all__ = [
    "Checkpoint",
    "adam_state",
    "load_checkpoint",
    "load_weights",
    "restore_adam_state",
    "save_checkpoint",
    "save_weights",
]


@dataclass
class Checkpoint:
    """All that a run needs to go on as if it had never stopped.

    Attributes:
        step: steps done.
        seconds: time spent so far, over all the times the run was resumed.
        model: the network's state dict.
        average: the averaged network's state dict.
        optimizer: Adam's moments and step counts, named PARAMETER_INDEX.KEY.
    """

    step: int
    seconds: float
    model: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to ``path``; a reader sees the old file or the new one, never a part."""
    tensors = {
        f"{part}/{name}": tensor
        for part in ("model", "average", "optimizer")
        for name, tensor in getattr(checkpoint, part).items()
    }
    metadata = {
        "format": "cycleisp-checkpoint/1",
        "step": str(checkpoint.step),
        "seconds": str(checkpoint.seconds),
    }
    _save(path, tensors, metadata)


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at ``path``.

    Raises:
        InputError: where it is not one of ours.
    """
    tensors, metadata = _load(path)
    if metadata.get("format") != "cycleisp-checkpoint/1":
        raise InputError(
            "not a cycleisp checkpoint",
            subject=path,
            met=metadata.get("format"),
            wanted="cycleisp-checkpoint/1",
        )
    checkpoint = Checkpoint(int(metadata["step"]), float(metadata["seconds"]), {}, {}, {})
    for key, tensor in tensors.items():
        part, _, name = key.partition("/")
        getattr(checkpoint, part)[name] = tensor
    return checkpoint


def save_weights(path: Path, model: nn.Module, name: str, size: str) -> None:
    """Write a network's weights with the name and size that ``create_model`` needs."""
    tensors = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    facts = json.dumps({"model": name, "size": size}, sort_keys=True)
    _save(path, tensors, {"format": "cycleisp-weights/1", "description": facts})


def load_weights(path: Path) -> tuple[str, str, dict[str, Tensor]]:
    """Name, size and state dict of a network.

    Raises:
        InputError: where the file is not one of ours.
    """
    tensors, metadata = _load(path)
    if metadata.get("format") != "cycleisp-weights/1":
        raise InputError(
            "not cycleisp weights",
            subject=path,
            met=metadata.get("format"),
            wanted="cycleisp-weights/1",
            hint="a training run writes them as weights.safetensors",
        )
    facts = json.loads(metadata["description"])
    return str(facts["model"]), str(facts["size"]), tensors


def _save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    part = path.with_name(path.name + ".part")
    save_file(tensors, part, metadata)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError("not a readable safetensors file", subject=path) from error


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
