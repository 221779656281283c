"""Checkpoints and weights: one safetensors file each, written whole or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cycleisp_runtime.errors import InputError
from cycleisp_runtime.writers.atomic import atomic_output

__all__ = [
    "Checkpoint",
    "adam_state",
    "load_checkpoint",
    "load_weights",
    "restore_adam_state",
    "save_checkpoint",
    "save_weights",
]

_CHECKPOINT_FORMAT = "cycleisp-checkpoint/1"
_WEIGHTS_FORMAT = "cycleisp-weights/1"


@dataclass(frozen=True)
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
    facts = {"step": str(checkpoint.step), "seconds": str(checkpoint.seconds)}
    _save(path, tensors, {"format": _CHECKPOINT_FORMAT, **facts})


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at ``path``.

    Raises:
        InputError: where it is not one of ours.
    """
    tensors, metadata = _load(path, _CHECKPOINT_FORMAT)
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
    try:
        for key, tensor in tensors.items():
            part, _, name = key.partition("/")
            parts[part][name] = tensor
        return Checkpoint(int(metadata["step"]), float(metadata["seconds"]), **parts)
    except (KeyError, ValueError) as error:
        raise _damaged(path) from error


def save_weights(path: Path, model: nn.Module, name: str, size: str) -> None:
    """Write a network's weights with the name and size that ``create_model`` needs.

    Raises:
        OutputError: where they cannot be written.
    """
    # Copies, for safetensors refuses memory under two names, which a shared PReLU has.
    tensors = {
        key: tensor.clone(memory_format=torch.contiguous_format)
        for key, tensor in model.state_dict().items()
    }
    facts = json.dumps({"model": name, "size": size}, sort_keys=True)
    _save(path, tensors, {"format": _WEIGHTS_FORMAT, "description": facts})


def load_weights(path: Path) -> tuple[str, str, dict[str, Tensor]]:
    """Name, size and state dict of a network.

    Raises:
        InputError: where the file is not one of ours.
    """
    tensors, metadata = _load(path, _WEIGHTS_FORMAT)
    try:
        facts = json.loads(metadata["description"])
        return str(facts["model"]), str(facts["size"]), tensors
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path) from error


def _save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    with atomic_output(path, source=None, force=True) as file:
        file.write(_with_sorted_metadata(save(tensors, metadata)))


def _with_sorted_metadata(content: bytes) -> bytes:
    """The same file with one order of metadata: safetensors' own differs from run to run."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    return content[:8] + encoded.ljust(length) + content[8 + length :]


def _load(path: Path, wanted: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  no mapping
    except (OSError, SafetensorError) as error:
        raise InputError("not a readable safetensors file", subject=path) from error
    if metadata.get("format") != wanted:
        raise InputError(
            "not the file that is needed here",
            subject=path,
            met=metadata.get("format", "no format"),
            wanted=wanted,
            hint="a run writes checkpoint.safetensors and, at its end, weights.safetensors",
        )
    return tensors, metadata


def _damaged(path: Path) -> InputError:
    return InputError("its description is damaged", subject=path, hint="train or fetch it again")


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
