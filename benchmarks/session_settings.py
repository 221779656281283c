"""The settings of an ONNX Runtime session, one changed at a time: are the runtime's own the best?

Every session runs the same tile in turn. ms per MP, median and least of the runs: wall time, and
the processor time of all threads, which says what a setting takes from other processes.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.report import options, save, table
from cycleisp_runtime.backends.onnxruntime import session_options
from cycleisp_runtime.bundle import find_bundle
from cycleisp_runtime.cores import physical_cores
from cycleisp_runtime.tile_runner import DEFAULT_TILE

OURS = "the runtime's own"

SLACK = 1.05
"""The least time of another setting may be this much below ours: less is noise."""

_Change = Callable[[Any], object]


def changes() -> dict[str, _Change]:
    """What is tried, by name; each changes the options that it is given."""
    level = onnxruntime.GraphOptimizationLevel
    threads = {
        f"{count} threads": _with_threads(count)
        for count in range(1, 2 * physical_cores() + 1)
        if count != physical_cores()
    }
    return {
        OURS: lambda _: None,
        **threads,
        "spinning threads": lambda it: it.add_session_config_entry(
            "session.intra_op.allow_spinning", "1"
        ),
        "no memory pattern": lambda it: setattr(it, "enable_mem_pattern", False),
        "no arena": lambda it: setattr(it, "enable_cpu_mem_arena", False),
        "parallel execution": lambda it: setattr(
            it, "execution_mode", onnxruntime.ExecutionMode.ORT_PARALLEL
        ),
        "basic optimisation": lambda it: setattr(
            it, "graph_optimization_level", level.ORT_ENABLE_BASIC
        ),
    }


def _with_threads(count: int) -> _Change:
    return lambda it: setattr(it, "intra_op_num_threads", count)


def measure(model: str, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and processor milliseconds per MP of every run, by setting, after one to warm up."""
    bundle = find_bundle(model)
    noisy = np.random.default_rng(0).random((1, 4, DEFAULT_TILE, DEFAULT_TILE), np.float32)
    inputs = bundle.record.tensors.fill(noisy, 1e-3 * noisy + 1e-5, 0.03)
    onnxruntime.set_default_logger_severity(4)  # it remarks on every setting that is changed
    sessions = {}
    for name, change in changes().items():
        settings = session_options()
        change(settings)
        sessions[name] = onnxruntime.InferenceSession(
            bundle.model("fp32"), settings, providers=["CPUExecutionProvider"]
        )
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in sessions}
    for _ in range(1 + rounds):
        for name, session in sessions.items():
            wall, processor = time.perf_counter(), time.process_time()
            session.run(None, inputs)
            spent = time.perf_counter() - wall, time.process_time() - processor
            runs[name].append((1e9 * spent[0] / noisy.size, 1e9 * spent[1] / noisy.size))
    return {name: each[1:] for name, each in runs.items()}


def main() -> None:
    """Print the table; exit 1 where a setting is faster than the runtime's own."""
    parser = options(__doc__, data=False)
    parser.add_argument("--model", default="edge", metavar="BUNDLE")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="%(default)s by default")
    arguments = parser.parse_args()
    runs = measure(arguments.model, arguments.rounds)
    ours = min(wall for wall, _ in runs[OURS])
    rows, faster = [], []
    for name, each in runs.items():
        walls, processors = zip(*each, strict=True)
        least = min(walls)
        rows.append(
            [
                name,
                f"{statistics.median(walls):.0f}",
                f"{least:.0f}",
                f"{least / ours:.2f}",
                f"{min(processors):.0f}",
            ]
        )
        if least * SLACK < ours:
            faster.append(f"{name} is faster: {least:.0f} against {ours:.0f} ms/MP")
    print(f"{arguments.model}, a tile of {DEFAULT_TILE}, ONNX Runtime {onnxruntime.__version__}")
    print(table(["setting", "ms/MP", "least", "times ours", "processor ms/MP"], rows))
    save(arguments.json, {"model": arguments.model, "ms_per_mp": runs})
    if faster:
        sys.exit("\n".join(faster))


if __name__ == "__main__":
    main()
