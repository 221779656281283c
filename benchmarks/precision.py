"""What FP16 and INT8 of the networks cost in dB, and what they save.

INT8 is calibrated on the photographs that trained the RAW networks, layers are chosen on others of
that folder, and losses are of the test photographs. FP16 is computed with true FP16 values; ONNX
Runtime on a CPU would compute it in FP32. Networks of size full have random weights, for none were
trained: their losses say that the road works, and nothing about a trained one. They are judged on
few photographs, and not in INT8, whose layers would take hours to choose.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import onnx
import onnxruntime
import torch

from benchmarks.report import options, required, save, table
from cycleisp.evaluation.metrics import ssim
from cycleisp.models import create_model
from cycleisp.models.storage import load_network
from cycleisp.noise import LEVELS
from cycleisp_calibration.sets import build_calibration_set
from cycleisp_calibration.survey import SetSettings
from cycleisp_export.exportable import Exportable, exportable
from cycleisp_export.loss import Graph, JudgedTiles, judging_tiles
from cycleisp_export.precisions import FP16_MOST_LOSS_DB, Reducer
from cycleisp_export.typed_graph import TypedGraph
from cycleisp_export.verify import OnnxGraph, parity
from cycleisp_runtime.bundle import NoiseRange, Precision
from cycleisp_runtime.errors import BackendError
from cycleisp_runtime.noise import NoiseModel

RUNS = Path(__file__).resolve().parents[1] / "zoo" / "runs"
NOISE = NoiseRange(shot_min=2e-5, shot_max=2e-2)
"""That the RAW networks were trained on."""

INT8_MOST_LOSS_DB = 0.2
BUDGET_DB = 0.12
"""That the shipped networks were exported with: on other photographs it may come out higher."""

TILES = 500
SIDE = 512
"""Packed samples, or pixels, of the frame that is timed."""

TIMED_RUNS = 5


@dataclass(frozen=True)
class Network:
    """One line of the table for each of its precisions.

    Attributes:
        task: of the network.
        size: as ``create_model`` knows it.
        weights: below RUNS; None for random ones.
    """

    task: Literal["raw", "srgb"]
    size: str
    weights: str | None

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """That it is exported at."""
        return ("fp32", "fp16") if self.size == "full" else ("fp32", "fp16", "int8", "int8-cpu")

    def build(self) -> Exportable:
        """With its weights."""
        kind = f"{self.task}_denoiser"
        if self.weights is not None:
            return exportable(load_network(RUNS / self.weights, kind))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return exportable(create_model(kind, self.size).eval().requires_grad_(False))


NETWORKS = {
    "RAW tiny": Network("raw", "tiny", "tiny/raw_denoiser.safetensors"),
    "RAW edge": Network("raw", "edge", "edge/raw_denoiser.safetensors"),
    "RAW small": Network("raw", "small", "small/raw_denoiser.safetensors"),
    "RAW full, random": Network("raw", "full", None),
    "sRGB tiny": Network("srgb", "tiny", "srgb_tiny/srgb_denoiser.safetensors"),
    "sRGB edge": Network("srgb", "edge", "srgb_edge/srgb_denoiser.safetensors"),
    "sRGB small": Network("srgb", "small", "small/srgb_denoiser.safetensors"),
    "sRGB full, random": Network("srgb", "full", None),
}


class Row(msgspec.Struct):
    """One network at one precision.

    Attributes:
        apart: largest difference from torch of FP32, from FP32 of the others, of samples whose
            white is 1, on discs at the three levels.
        loss_db: mean over the test photographs, by noise level.
        worst_db: of the photograph that loses most.
        ssim: mean, of the output and the clean photograph, by noise level.
        kept: layers that are at a higher precision.
        ms_per_mp: in ONNX Runtime, one thread; medians. MP are samples of RAW, pixels of sRGB.
        export_seconds: graph, checks and choices.
        peak_mb: of the process that exported it.
    """

    kilobytes: float
    apart: float
    loss_db: dict[str, float]
    worst_db: dict[str, float]
    ssim: dict[str, float]
    kept: list[str]
    ms_per_mp: float
    export_seconds: float
    peak_mb: float


def export(
    network: Network, precision: Precision, data: Path
) -> tuple[bytes, list[str], float, float]:
    """The file, what is kept at a higher precision, seconds and MB; for a process of its own."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    proto, kept = _exported(network, precision, data)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return proto.SerializeToString(deterministic=True), kept, seconds, peak


def _exported(
    network: Network, precision: Precision, data: Path
) -> tuple[onnx.ModelProto, list[str]]:
    model = network.build()
    if precision == "fp32":
        proto = model.graph({})
        parity(model, OnnxGraph(proto))
        return proto, []
    chosen_on = judging_tiles(model, data / "photos_train", "b_*")
    reducer = Reducer(model, {}, NOISE if network.task == "raw" else None, chosen_on)
    if precision == "fp16":
        reduced = reducer.half()
    else:
        photographs = sorted((data / "photos_train").glob("a_*.jpg"))
        levels = tuple(NoiseModel.uniform(*each) for each in LEVELS.values())
        settings = SetSettings(task=network.task, tiles=TILES, levels=levels)
        calibration = build_calibration_set(photographs, settings).calibration
        make = reducer.int8 if precision == "int8" else reducer.cpu_int8
        calibrated = reducer.calibrated(calibration, "percentile")
        reduced = make(calibrated, BUDGET_DB, lambda _sentence: None)
    return reduced.proto, list(reduced.reduction.kept)


def measure(name: str, data: Path) -> dict[Precision, Row]:
    """Every precision of one network, timed in turn; what the export refuses is printed."""
    network = NETWORKS[name]
    spawn = multiprocessing.get_context("spawn")
    exported: dict[Precision, tuple[bytes, list[str], float, float]] = {}
    for precision in network.precisions:
        with spawn.Pool(1) as alone:
            try:
                exported[precision] = alone.apply(export, (network, precision, data))
            except BackendError as error:
                print(f"{name} has no {precision}: {error}", flush=True)
    model = network.build()
    protos = {name: onnx.load_from_string(found[0]) for name, found in exported.items()}
    exact = OnnxGraph(protos["fp32"])
    graphs: dict[Precision, Graph] = {
        name: TypedGraph(proto) if name == "fp16" else OnnxGraph(proto)
        for name, proto in protos.items()
    }
    judged = JudgedTiles(model, judging_tiles(model, data / "photos_test"), exact)
    times = _times(model, {name: found[0] for name, found in exported.items()})
    rows = {}
    for precision, graph in graphs.items():
        file, kept, seconds, peak = exported[precision]
        mean, worst = judged.losses(graph)
        rows[precision] = Row(
            kilobytes=len(file) / 1000,
            apart=_apart(model, graph, model.denoise if precision == "fp32" else exact),
            loss_db=mean,
            worst_db=worst,
            ssim={level: _ssim(graph, judged, level) for level in LEVELS},
            kept=kept,
            ms_per_mp=times[precision],
            export_seconds=seconds,
            peak_mb=peak,
        )
    return rows


def _apart(model: Exportable, graph: Graph, other: Graph) -> float:
    frames = model.frames(np.random.default_rng(0), 1, 96, 96)
    inputs = [model.with_gates(frame) for _, frame in frames]
    return max(float(np.abs(graph(each) - other(each)).max()) for each in inputs)


def _ssim(graph: Graph, judged: JudgedTiles, level: str) -> float:
    """Planes are its channels."""
    return statistics.fmean(
        ssim(np.clip(graph(inputs)[0], 0, 1).transpose(1, 2, 0), clean.transpose(1, 2, 0))
        for clean, inputs in zip(judged.clean, judged.inputs[level], strict=True)
    )


def _times(model: Exportable, networks: Mapping[Precision, bytes]) -> dict[Precision, float]:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(network, settings, providers=["CPUExecutionProvider"])
        for name, network in networks.items()
    }
    side = SIDE if model.tensors.gates is None else SIDE // 4
    frames = dict(model.frames(np.random.default_rng(0), 1, side, side))
    inputs = model.with_gates(frames["middle"])
    samples = side * side * (4 if model.task == "raw" else 1)
    seconds: dict[Precision, list[float]] = {name: [] for name in networks}
    for _ in range(1 + TIMED_RUNS):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(None, inputs)
            seconds[name].append(time.perf_counter() - start)
    return {name: 1e9 * statistics.median(each[1:]) / samples for name, each in seconds.items()}


def precision_table(results: Mapping[str, Mapping[Precision, Row]]) -> str:
    """One line per network and precision."""
    header = ["network", " precision", "kB", "apart"]
    header += [f"{level} dB" for level in LEVELS]
    header += [f"worst {level}" for level in LEVELS]
    header += [f"SSIM {level}" for level in LEVELS]
    header += ["kept", "ms/MP", "export s", "peak MB"]
    rows = [
        [
            model,
            precision,
            f"{row.kilobytes:.0f}",
            f"{row.apart:.1e}",
            *(f"{-row.loss_db[level]:+.3f}" for level in LEVELS),
            *(f"{-row.worst_db[level]:+.2f}" for level in LEVELS),
            *(f"{row.ssim[level]:.4f}" for level in LEVELS),
            str(len(row.kept)),
            f"{row.ms_per_mp:.0f}",
            f"{row.export_seconds:.1f}",
            f"{row.peak_mb:.0f}",
        ]
        for model, by_precision in results.items()
        for precision, row in by_precision.items()
    ]
    return table(header, rows)


def failed_claims(results: Mapping[str, Mapping[Precision, Row]]) -> list[str]:
    """Losses above what is allowed, and INT8 for CPUs that is slower than FP32."""
    most: dict[Precision, float] = {
        "fp32": 0.0,
        "fp16": FP16_MOST_LOSS_DB,
        "int8": INT8_MOST_LOSS_DB,
        "int8-cpu": INT8_MOST_LOSS_DB,
    }
    losses = [
        f"{precision} of {model} loses {loss:.3f} dB at {level} noise"
        for model, by_precision in results.items()
        for precision, row in by_precision.items()
        for level, loss in row.loss_db.items()
        if not loss <= most[precision]
    ]
    slower = [
        f"int8-cpu of {model} is slower than FP32 on this CPU: "
        f"{rows['int8-cpu'].ms_per_mp:.0f} to {rows['fp32'].ms_per_mp:.0f} ms per MP"
        for model, rows in results.items()
        if "int8-cpu" in rows and rows["int8-cpu"].ms_per_mp >= rows["fp32"].ms_per_mp
    ]
    return losses + slower


def main() -> None:
    """Print the table and what is kept; exit 1 where a precision loses more than it may."""
    parser = options(__doc__)
    parser.add_argument(
        "--only", choices=NETWORKS, action="append", help="one of the networks; all by default"
    )
    arguments = parser.parse_args()
    data = required(arguments.data)
    required(data / "photos_train")
    required(data / "photos_test")
    results = {name: measure(name, data) for name in arguments.only or NETWORKS}
    print(precision_table(results))
    for model, by_precision in results.items():
        for precision, row in by_precision.items():
            if row.kept:
                print(f"{model}, {precision}, at a higher precision: {', '.join(row.kept)}")
    save(arguments.json, msgspec.to_builtins(results))
    failed = failed_claims(results)
    if failed:
        print("\n" + "\n".join(failed))
        sys.exit(1)


if __name__ == "__main__":
    main()
