"""Where a bundle's lower precision departs from its FP32, layer by layer, without photographs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError

from cycleisp.noise import LEVELS, noisy_samples, variance_map
from cycleisp_export.exportable import dead_leaves
from cycleisp_export.layer_snr import LayerSnr, layer_snr
from cycleisp_export.verify import OnnxGraph, check_graph
from cycleisp_runtime.bundle import Bundle, Precision
from cycleisp_runtime.errors import BackendError, BundleError, SettingsError

__all__ = ["explain"]

_SIDE = 64
"""Of a tile, in packed samples or pixels: of a multiple that every network takes."""

_GAMMA = np.float32(2.2)
"""Brings linear light near sRGB's curve."""


def explain(bundle: Bundle, precision: Precision) -> list[LayerSnr]:
    """The layers of a precision below FP32, each with its SNR on made-up frames.

    On a frame of random discs at each of the three noise levels.

    Raises:
        SettingsError: where the precision is FP32.
        BundleError: where the bundle lacks one of the two, or a file is no ONNX.
        BackendError: where a graph is not one of this family.
    """
    if precision == "fp32":
        raise SettingsError(
            "FP32 is what the others are compared with", wanted="fp16, int8 or int8-cpu"
        )
    exact, lower = _graph(bundle, "fp32"), _graph(bundle, precision)
    try:
        return layer_snr(exact, lower, _tiles(bundle))
    except (LookupError, RuntimeError, TypeError) as error:
        raise BackendError(
            "the graphs are not ones that cycleisp export writes", subject=bundle.folder
        ) from error


def _graph(bundle: Bundle, precision: Precision) -> onnx.ModelProto:
    return _checked(
        bundle.model(precision), bundle.folder / bundle.record.precisions[precision].file
    )


def _checked(network: bytes, path: Path) -> onnx.ModelProto:
    try:
        proto = onnx.load_from_string(network)
    except DecodeError as error:
        raise BundleError("not an ONNX file", subject=path) from error
    check_graph(proto)
    return proto


def _tiles(bundle: Bundle) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
    record = bundle.record
    statistics = None
    if record.pooling is not None:
        path = bundle.folder / record.pooling.statistics.file
        statistics = OnnxGraph(_checked(bundle.statistics(), path))
    rng = np.random.default_rng(0)
    for shot, read in LEVELS.values():
        clean = dead_leaves(rng, record.channels, _SIDE, _SIDE)[None]
        noisy = noisy_samples(clean, shot, read, rng)
        variance = scale = None
        if record.task == "srgb":
            noisy = np.power(np.clip(noisy, 0, 1), 1 / _GAMMA)
        else:
            variance = variance_map(noisy, shot, read)
            scale = float(np.sqrt(variance.mean()))
        inputs = record.tensors.fill(noisy, variance, scale)
        gates = None if statistics is None else statistics(inputs)
        yield record.tensors.fill(noisy, variance, scale, gates)
