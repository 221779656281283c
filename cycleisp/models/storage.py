"""A network in one safetensors file: its weights, its name, its size."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cycleisp.models import create_model
from cycleisp_runtime.errors import InputError, SettingsError
from cycleisp_runtime.writers.atomic import atomic_output

__all__ = [
    "damaged",
    "load_network",
    "read_network",
    "read_tensors",
    "save_network",
    "write_tensors",
]

_FORMAT = "cycleisp-weights/1"


def save_network(path: Path, network: nn.Module, name: str, size: str) -> None:
    """Write a network's weights with the name and size that ``create_model`` needs.

    Raises:
        OutputError: where they cannot be written.
    """
    facts = json.dumps({"model": name, "size": size}, sort_keys=True)
    write_tensors(path, network.state_dict(), {"format": _FORMAT, "description": facts})


def read_network(path: Path) -> tuple[str, str, dict[str, Tensor]]:
    """Name, size and state dict of a network.

    Raises:
        InputError: where the file is not one of ours.
    """
    tensors, metadata = read_tensors(path, _FORMAT)
    try:
        facts = json.loads(metadata["description"])
        return str(facts["model"]), str(facts["size"]), tensors
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path) from error


def load_network(path: Path, name: str, size: str | None = None) -> nn.Module:
    """The network of a file, ready to be applied: evaluation mode, no gradients.

    Args:
        path: written by ``save_network``.
        name: which of ``NETWORKS`` is needed.
        size: which size is needed; None for any.

    Raises:
        InputError: where the file is not one of ours, or holds another network or size.
    """
    found_name, found_size, tensors = read_network(path)
    if found_name != name or size not in (None, found_size):
        raise InputError(
            "the wrong network",
            subject=path,
            met=f"{found_name} {found_size}",
            wanted=f"{name} {size or ''}".strip(),
            hint="give the file of that name from the run that trained it",
        )
    try:
        network = create_model(found_name, found_size)
        network.load_state_dict(tensors)
    except (SettingsError, RuntimeError) as error:
        raise damaged(path) from error
    return network.eval().requires_grad_(False)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file whole or not at all; the same content gives the same bytes.

    Raises:
        OutputError: where it cannot be written.
    """
    # Copies, for safetensors refuses memory under two names, which a shared PReLU has.
    copies = {
        key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, tensor in tensors.items()
    }
    with atomic_output(path, source=None, force=True) as file:
        file.write(_with_sorted_metadata(save(copies, metadata)))


def _with_sorted_metadata(content: bytes) -> bytes:
    """The same file with one order of metadata: safetensors' own differs from run to run."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    return content[:8] + encoded.ljust(length) + content[8 + length :]


def read_tensors(path: Path, wanted: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file whose metadata names the format ``wanted``.

    Raises:
        InputError: where it is no safetensors file, or of another format.
    """
    try:
        path.stat()  # whose errors say what is wrong, while those of safe_open have no strerror
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  no mapping
    except (OSError, SafetensorError) as error:
        raise InputError(
            "not a readable safetensors file", subject=path, met=getattr(error, "strerror", None)
        ) from error
    if metadata.get("format") != wanted:
        raise InputError(
            "not the file that is needed here",
            subject=path,
            met=metadata.get("format", "no format"),
            wanted=wanted,
            hint="a run writes checkpoint.safetensors and, at its end, one file per network",
        )
    return tensors, metadata


def damaged(path: Path) -> InputError:
    """The error of a file of ours whose description does not fit its tensors."""
    return InputError("its description is damaged", subject=path, hint="train or fetch it again")
