"""Golden vectors of the networks, and the weights that they were made with.

The weights are synthetic: they depend on nothing but the name and shape of a parameter.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cycleisp.models import create_model

__all__ = [
    "GOLDEN",
    "TOLERANCE",
    "fill_with_golden_weights",
    "golden_network",
    "golden_vectors",
    "largest_difference",
]

GOLDEN = Path(__file__).resolve().parents[1] / "golden"

TOLERANCE = 1e-5
"""The golden values are float64 results; float32 alone differs by up to 2.1e-6."""

_OUTPUTS = {
    "rgb2raw": ("tail.0", 0.5),
    "color_branch": (None, 0.0),
    "raw2rgb": ("tail_rgb.0", 0.5),
    "raw_denoiser": ("tail.0", 0.0),
    "srgb_denoiser": ("tail.0", 0.0),
}
"""The convolution that makes the picture, and what its bias is raised by."""

_FIXED = frozenset({"blur.weight"})
"""Parameters that have their values from the beginning."""


def golden_vectors(name: str) -> dict[str, Tensor]:
    """The arrays of one file of tests/golden."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(array) for key, array in arrays.items()}


def largest_difference(output: Tensor, golden: Tensor) -> float:
    """Over all elements of two tensors of one shape."""
    assert output.shape == golden.shape
    return (output - golden).detach().abs().max().item()


def golden_network(name: str) -> nn.Module:
    """The published network of this name with its golden weights."""
    network = create_model(name)
    output, raised_by = _OUTPUTS[name]
    fill_with_golden_weights(network, frozenset({f"{output}.weight"}))
    if output is not None:
        with torch.no_grad():
            network.get_parameter(f"{output}.bias").add_(raised_by)
    return network


def fill_with_golden_weights(module: nn.Module, output_convs: frozenset[str] = frozenset()) -> None:
    """Give every parameter its golden value; a shared parameter takes that of its first name."""
    canonical: dict[int, str] = {}
    for name, parameter in sorted(module.named_parameters(remove_duplicate=False)):
        canonical.setdefault(id(parameter), name)
    with torch.no_grad():
        for parameter in module.parameters():
            name = canonical[id(parameter)]
            if name not in _FIXED:
                value = _golden_value(name, tuple(parameter.shape), output_convs)
                parameter.copy_(torch.from_numpy(value))


def _golden_value(
    name: str, shape: tuple[int, ...], output_convs: frozenset[str]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    normal = np.random.default_rng(seed).standard_normal(shape, dtype=np.float64)
    if len(shape) == 1 and name.endswith("bias"):
        value = 0.01 * normal
    elif len(shape) == 1:
        value = 0.25 + 0.05 * normal
    else:
        if name in output_convs:
            gain = 0.3
        elif "conv_du" in name or "spatial" in name:
            gain = 3.0
        else:
            gain = 0.9
        value = normal * gain / math.sqrt(math.prod(shape[1:]))
    return value.astype(np.float32)
