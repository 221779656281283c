"""Synthetic weights that depend on nothing but the name and shape of a parameter."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from torch import nn


def fill_with_golden_weights(module: nn.Module, output_convs: frozenset[str] = frozenset()) -> None:
    """Give every parameter its golden value; a shared parameter takes that of its first name."""
    canonical: dict[int, str] = {}
    for name, parameter in sorted(module.named_parameters(remove_duplicate=False)):
        canonical.setdefault(id(parameter), name)
    with torch.no_grad():
        for parameter in module.parameters():
            value = _golden_value(canonical[id(parameter)], tuple(parameter.shape), output_convs)
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
