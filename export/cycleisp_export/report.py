"""What each precision of a bundle costs, as figures for programs and crops for people.

Judged on the photographs that losses are stated on, with the same noise on them.
"""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
from PIL import Image

from cycleisp.evaluation.metrics import psnr, ssim
from cycleisp.noise import LEVELS
from cycleisp.synthesis.pictures import viewable
from cycleisp_export.graph import NOISY
from cycleisp_export.layer_snr import LayerSnr, layer_snr
from cycleisp_export.loss import Graph, JudgedTiles
from cycleisp_export.typed_graph import TypedGraph
from cycleisp_export.verify import OnnxGraph
from cycleisp_export.watch import Watch, nobody
from cycleisp_runtime.bundle import BundleRecord, Precision

__all__ = ["Crop", "LevelQuality", "PrecisionReport", "Report", "Similarity", "measure_report"]

_CROPS = 2
"""Pictures that can be looked at, at every level."""

_SNR_TILES = 2
"""Tiles per level that layers are compared on; one differs little from the next."""

_GAINS = (2.0, 1.0, 1.6)
"""The white balance that ``validation_planes`` took off RAW."""

_JPEG_QUALITY = 95

_Planes = npt.NDArray[np.float32]


class Similarity(msgspec.Struct, frozen=True):
    """Means over the photographs, of output clipped to [0, 1], peak 1.

    Attributes:
        psnr_db: in dB; None where a photograph does not differ at all.
        ssim: over the planes as they are, linear for RAW.
    """

    psnr_db: float | None
    ssim: float


class LevelQuality(msgspec.Struct, frozen=True):
    """A precision at one noise level.

    Attributes:
        clean: how near the clean photographs it comes.
        fp32: how near the output of FP32.
    """

    clean: Similarity
    fp32: Similarity


class PrecisionReport(msgspec.Struct, frozen=True):
    """One file of the bundle.

    Attributes:
        bytes: of the file.
        opset: of ONNX.
        quality: by noise level.
        kept: layers at a higher precision, with that precision and the reason.
        layers: every layer's type and its SNR against FP32; none for FP32.
    """

    bytes: int
    opset: int
    quality: dict[str, LevelQuality]
    kept: dict[str, str] = {}
    layers: tuple[LayerSnr, ...] = ()


class Report(msgspec.Struct, frozen=True):
    """``report.json``.

    Attributes:
        format: version of this schema.
        model: name of the bundle.
        task: "raw" or "srgb".
        weights_sha256: of the exported checkpoint.
        photographs: how many are judged on.
        noisy: quality of the noisy photographs by noise level.
        precisions: by name.
    """

    format: str
    model: str
    task: str
    weights_sha256: str
    photographs: int
    noisy: dict[str, LevelQuality]
    precisions: dict[Precision, PrecisionReport]


@dataclass(frozen=True)
class Crop:
    """One photograph at one noise level, to look at.

    Attributes:
        picture: its number, from 1.
        level: of the noise.
        views: JPEG files of equal size by name: "noisy", every precision, "clean".
    """

    picture: int
    level: str
    views: dict[str, bytes]


def measure_report(
    record: BundleRecord,
    protos: Mapping[Precision, onnx.ModelProto],
    tiles: JudgedTiles,
    watch: Watch = nobody,
) -> tuple[Report, list[Crop]]:
    """The report of a bundle that is about to be written, and the crops that go with it.

    Args:
        record: of the bundle, with all its precisions.
        protos: the graph of every precision.
        tiles: what losses are stated on.
        watch: called after every tile and every precision.
    """
    graphs = {name: _as_computed(name, proto) for name, proto in protos.items()}
    judged, crops = _judged(graphs, tiles, watch)
    compared = [inputs for of_level in tiles.inputs.values() for inputs in of_level[:_SNR_TILES]]
    precisions = {}
    for count, (name, proto) in enumerate(protos.items(), 1):
        file = record.precisions[name]
        precisions[name] = PrecisionReport(
            bytes=file.bytes,
            opset=file.opset,
            quality=judged[name],
            kept={} if file.reduction is None else dict(file.reduction.kept),
            layers=() if name == "fp32" else tuple(layer_snr(protos["fp32"], proto, compared)),
        )
        watch("layers", count, len(protos))
    report = Report(
        format="cycleisp-report/1",
        model=record.name,
        task=record.task,
        weights_sha256=record.provenance.weights_sha256,
        photographs=len(tiles.clean),
        noisy=judged["noisy"],
        precisions=precisions,
    )
    return report, crops


def _judged(
    graphs: Mapping[Precision, Graph], tiles: JudgedTiles, watch: Watch
) -> tuple[dict[str, dict[str, LevelQuality]], list[Crop]]:
    """Quality of "noisy" and of every precision by level, and crops of some of the photographs."""
    judged: dict[str, dict[str, LevelQuality]] = {name: {} for name in ("noisy", *graphs)}
    crops: list[Crop] = []
    count = len(tiles.clean)
    shown = range(0, count, max(1, count // _CROPS))[:_CROPS]
    for level in LEVELS:
        to_clean: dict[str, list[tuple[float, float]]] = {name: [] for name in judged}
        to_fp32: dict[str, list[tuple[float, float]]] = {name: [] for name in judged}
        for index, (truth, inputs) in enumerate(zip(tiles.clean, tiles.inputs[level], strict=True)):
            outputs = {"noisy": inputs[NOISY][0].clip(0, 1)}
            outputs |= {name: graph(inputs)[0].clip(0, 1) for name, graph in graphs.items()}
            for name, output in outputs.items():
                to_clean[name].append(_psnr_and_ssim(output, truth))
                to_fp32[name].append(_psnr_and_ssim(output, outputs["fp32"]))
            if index in shown:
                crops.append(_crop(shown.index(index) + 1, level, {**outputs, "clean": truth}))
            watch(f"report at {level} noise", index + 1, count)
        for name, by_level in judged.items():
            by_level[level] = LevelQuality(_mean(to_clean[name]), _mean(to_fp32[name]))
    return judged, crops


def _as_computed(precision: Precision, proto: onnx.ModelProto) -> Graph:
    """ONNX Runtime, but FP16 with true FP16 values, which it does not have on a CPU."""
    return TypedGraph(proto) if precision == "fp16" else OnnxGraph(proto)


def _psnr_and_ssim(output: _Planes, reference: _Planes) -> tuple[float, float]:
    similarity = ssim(output.transpose(1, 2, 0), reference.transpose(1, 2, 0))
    return psnr(output, reference), similarity


def _mean(found: Sequence[tuple[float, float]]) -> Similarity:
    decibels, similarity = (statistics.fmean(each) for each in zip(*found, strict=True))
    return Similarity(round(decibels, 3) if math.isfinite(decibels) else None, round(similarity, 6))


def _crop(picture: int, level: str, outputs: Mapping[str, _Planes]) -> Crop:
    views = {name: _jpeg(viewable(planes, _GAINS)) for name, planes in outputs.items()}
    return Crop(picture, level, views)


def _jpeg(codes: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(codes).save(file, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return file.getvalue()
