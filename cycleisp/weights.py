"""Import of CycleISP's published weights, from a file that the user has downloaded.

The authors publish PyTorch checkpoints, which are pickles. This module alone opens one, and takes
nothing but tensors from it; what it writes is safetensors.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cycleisp.models import NETWORKS, create_model
from cycleisp.models.storage import save_network
from cycleisp_runtime.errors import InputError, SettingsError
from cycleisp_runtime.writers.atomic import atomic_output, check_output

__all__ = ["PublishedWeights", "import_weights", "read_published"]

_LARGEST_FILE = 128 * 2**20
"""Bytes. RAW2RGB with Adam's two moments, the largest that is published, takes 39 MB."""

_ARCHIVE = b"PK\x03\x04"
"""How torch tells its newer format, a zip archive, from the older one."""

_SAFE_TORCH = "2.10"
"""Until here files could get past ``weights_only``: CVE-2025-32434, CVE-2026-24747."""

_TERMS = (
    "The weights that the authors of CycleISP publish are under their Academic Public License: "
    "for non-commercial use only; for any other ask them. The weights that come with this package "
    "are not derived from them."
)


@dataclass(frozen=True)
class PublishedWeights:
    """Where a network's weights come from.

    Attributes:
        model: name of the network, as ``create_model`` knows it.
        size: its size, always ``full``.
        source: name of the file that the weights came in.
        source_sha256: that file's SHA-256.
        epoch: of the training, as the file says; None where it does not.
        terms: what the weights may be used for.
    """

    model: str
    size: str
    source: str
    source_sha256: str
    epoch: int | None
    terms: str = _TERMS


def import_weights(source: Path, output: Path, *, force: bool = False) -> PublishedWeights:
    """Write published weights as safetensors, and beside them NAME.json, which says what they are.

    Args:
        source: a checkpoint of the authors, as ``read_published`` takes it.
        output: NAME.safetensors.
        force: whether files that stand there may be replaced.

    Raises:
        SettingsError: where ``output`` has another suffix.
        InputError: as ``read_published``.
        OutputError: where a file cannot be written.
    """
    if output.suffix != ".safetensors":
        raise SettingsError("not a name for weights", met=output, wanted="NAME.safetensors")
    check_output(output, source=source, force=force)
    weights, network = read_published(source)
    with atomic_output(output.with_suffix(".json"), source=source, force=force) as file:
        file.write((json.dumps(asdict(weights), indent=2) + "\n").encode())
        save_network(output, network, weights.model, weights.size)
    return weights


def read_published(path: Path) -> tuple[PublishedWeights, nn.Module]:
    """The network in a checkpoint of the authors, and where it comes from.

    The checkpoint is a state dict, or holds one under ``state_dict``; names may carry the
    ``module.`` of DataParallel. Which of the five networks it is, its names and shapes tell. The
    activation that a network shares may stand under all of its names or under some of them.

    Raises:
        InputError: where the file is no such checkpoint, or a tensor of it is missing, unknown, of
            another shape or type, not finite, or a copy that differs.
    """
    content = _read(path)
    loaded = _unpickled(path, content)
    tensors = _tensors_by_name(path, loaded)
    name = _closest_network(path, tensors)
    network = create_model(name)
    _check_tensors(path, name, tensors, network.state_dict())
    network.load_state_dict(_under_every_name(path, name, tensors, network))
    epoch = loaded.get("epoch")
    weights = PublishedWeights(
        model=name,
        size="full",
        source=path.name,
        source_sha256=hashlib.sha256(content).hexdigest(),
        epoch=epoch if isinstance(epoch, int) else None,
    )
    return weights, network


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise InputError("cannot be read", subject=path, met=error.strerror) from error
    try:
        unpacked = _unpacked_size(content)
    except Exception as error:  # zipfile lets many kinds of error through
        raise _no_checkpoint(path) from error
    if max(len(content), unpacked) > _LARGEST_FILE:
        raise InputError(
            "too large for weights of CycleISP",
            subject=path,
            wanted=f"at most {_LARGEST_FILE >> 20} MiB",
        )
    return content


def _unpacked_size(content: bytes) -> int:
    """Bytes of all entries, if this is an archive: they may be compressed, or share their bytes."""
    if not content.startswith(_ARCHIVE):
        return 0
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def _unpickled(path: Path, content: bytes) -> dict[object, object]:
    if torch.__version__ < _SAFE_TORCH:
        raise InputError(
            "this torch does not open checkpoints safely",
            subject=path,
            met=torch.__version__,
            wanted="2.10 or newer",
            hint="pip install --upgrade torch",
        )
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a pickle can fail in any way it likes
        raise _no_checkpoint(path) from error
    if not isinstance(loaded, dict):
        raise InputError("holds no state dict", subject=path, met=type(loaded).__name__)
    return loaded


def _no_checkpoint(path: Path) -> InputError:
    return InputError(
        "not a checkpoint of tensors alone",
        subject=path,
        hint="download it again; a file that holds code is never opened",
    )


def _tensors_by_name(path: Path, loaded: dict[object, object]) -> dict[str, Tensor]:
    state = loaded.get("state_dict", loaded)
    if not isinstance(state, dict) or not state:
        raise InputError("holds no state dict", subject=path)
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        name = str(key).removeprefix("module.")
        if name in tensors:
            raise InputError("a tensor with and without module.", subject=path, met=_short(name))
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
            raise InputError("not a plain tensor", subject=path, met=_short(name))
        tensors[name] = value
    return tensors


def _closest_network(path: Path, tensors: dict[str, Tensor]) -> str:
    """The network that has most of these names with these shapes."""
    agreeing = {}
    for name in NETWORKS:
        with torch.device("meta"):
            expected = create_model(name).state_dict()
        agreeing[name] = sum(
            key in tensors and tensors[key].shape == value.shape for key, value in expected.items()
        )
    closest = max(agreeing, key=agreeing.__getitem__)
    if not agreeing[closest]:
        raise InputError(
            "not the weights of a network of CycleISP",
            subject=path,
            met=_listed([_short(key) for key in tensors]),
            wanted=f"one of {', '.join(NETWORKS)}",
        )
    return closest


def _check_tensors(
    path: Path, name: str, tensors: dict[str, Tensor], expected: dict[str, Tensor]
) -> None:
    unknown = [f"{_short(key)} {_form(tensors[key])}" for key in tensors if key not in expected]
    if unknown:
        raise InputError(f"tensors that {name} does not have", subject=path, met=_listed(unknown))
    for key, tensor in tensors.items():
        if _form(tensor) != _form(expected[key]):
            raise InputError(
                f"{key} is not as in {name}",
                subject=path,
                met=_form(tensor),
                wanted=_form(expected[key]),
            )
        if not tensor.isfinite().all():
            raise InputError(f"{key} holds values that are not finite", subject=path)


def _under_every_name(
    path: Path, name: str, tensors: dict[str, Tensor], network: nn.Module
) -> dict[str, Tensor]:
    """The state dict with the shared activation under each of its names."""
    names_of: dict[int, list[str]] = {}
    for key, parameter in network.named_parameters(remove_duplicate=False):
        names_of.setdefault(id(parameter), []).append(key)
    missing = []
    complete: dict[str, Tensor] = {}
    for names in names_of.values():
        present = [key for key in names if key in tensors]
        if not present:
            missing.append(names[0])
            continue
        for key in present[1:]:
            if not torch.equal(tensors[key], tensors[present[0]]):
                raise InputError(
                    f"{key} differs from {present[0]}",
                    subject=path,
                    wanted=f"equal values, for {name} has one activation",
                )
        complete |= dict.fromkeys(names, tensors[present[0]])
    if missing:
        raise InputError(f"lacks tensors of {name}", subject=path, wanted=_listed(missing))
    return complete


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _short(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:77]}..."


def _listed(items: list[str]) -> str:
    shown = ", ".join(items[:3])
    return shown if len(items) <= 3 else f"{shown} and {len(items) - 3} more"
