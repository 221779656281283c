"""Time of a bundle's engines on the GPU at hand: bare, through the backend, and the least possible.

Bare is what the GPU needs between having a tile and having it denoised, by its own clock. Through
the backend is the wall clock per tile, from arrays to arrays: one tile at a time, and several at a
time, whose copying overlaps. All of them take turns; medians. The least possible is the longer of
computing at the peak of the data sheet and of moving every convolution's input and output through
the memory once ("unfused": an engine that fuses them may need less).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.report import options, save, table
from cycleisp_runtime.backends.tensorrt import TensorRTBackend
from cycleisp_runtime.bench.machine import describe_machine
from cycleisp_runtime.bench.peaks import peak
from cycleisp_runtime.bench.record import Machine
from cycleisp_runtime.bundle import Bundle, BundleRecord, Precision, find_bundle

WARM_UP, TURNS, AT_ONCE = 20, 100, 8

GIGABYTES_PER_SECOND = {
    "Orin Nano": 102,
    "Orin NX": 102,
    "AGX Orin": 204.8,
    "Thor": 273,
    "H200": 4800,
    "H100": 3350,
    "L4": 300,
    "RTX 4090": 1008,
    "RTX 5090": 1792,
}
"""Of the memory, from NVIDIA's data sheets, by a part of the board's or the GPU's name. An Orin
Nano has it in the power modes that are called Super, else 68."""

ELEMENTS_PER_SAMPLE = {"edge": 129, "tiny": 68}
"""Inputs and outputs of all convolutions, per sensor sample."""

BYTES_PER_ELEMENT: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}

Inputs = Mapping[str, npt.NDArray[np.float32]]


class Times(NamedTuple):
    """Milliseconds per tile; None where the tables do not know the GPU or the network.

    Attributes:
        bare: by the GPU's clock.
        alone: through the backend, one tile at a time.
        together: through the backend, ``AT_ONCE`` tiles at a time.
        computing: at the peak of the data sheet.
        moving: at the bandwidth of the data sheet.
    """

    bare: float
    alone: float
    together: float
    computing: float | None
    moving: float | None

    @property
    def least(self) -> float | None:
        """The longer of the two that are known."""
        known = [bound for bound in (self.computing, self.moving) if bound is not None]
        return max(known, default=None)


def inputs(record: BundleRecord, side: int, count: int) -> Inputs:
    """Grey tiles with noise."""
    rng = np.random.default_rng(0)
    shape = (count, record.channels, side, side)
    noisy = np.float32(0.25) + rng.normal(0, 0.05, shape).astype(np.float32)
    gates = None if record.pooling is None else np.ones((1, record.pooling.gates, 1, 1), np.float32)
    return record.tensors.fill(noisy, np.full(shape, 0.0025, np.float32), 0.05, gates)


def measure(bundle: Bundle, precision: Precision, side: int, machine: Machine) -> Times:
    """Of one engine, which is built first where the cache has none."""
    one, several = (inputs(bundle.record, side, count) for count in (1, AT_ONCE))
    bare, alone, together = [], [], []
    with TensorRTBackend(bundle, precision) as backend:
        for turn in range(WARM_UP + TURNS):
            start = time.perf_counter()
            backend.run(one)
            middle = time.perf_counter()
            compute = backend.seconds["compute"]
            backend.run(several)
            end = time.perf_counter()
            if turn >= WARM_UP:
                bare.append(compute)
                alone.append(middle - start)
                together.append((end - middle) / AT_ONCE)
    medians = [1e3 * statistics.median(seconds) for seconds in (bare, alone, together)]
    computing, moving = bounds(bundle.record, precision, side, machine)
    return Times(medians[0], medians[1], medians[2], computing, moving)


def bounds(
    record: BundleRecord, precision: Precision, side: int, machine: Machine
) -> tuple[float | None, float | None]:
    """Milliseconds for a tile at the peak rate, and at the peak bandwidth."""
    samples = side * side * (4 if record.task == "raw" else 1)
    best = peak(machine, precision, on_gpu=True, threads=None)
    operations = 2e3 * record.kmac_per_sample * samples
    computing = None if best is None else operations / best.tops / 1e9
    names = f"{machine.board} {machine.gpu and machine.gpu.name}"
    rates = [rate for name, rate in GIGABYTES_PER_SECOND.items() if name in names]
    elements = ELEMENTS_PER_SAMPLE.get(record.name)
    if not rates or elements is None:
        return computing, None
    return computing, elements * BYTES_PER_ELEMENT[precision] * samples / rates[0] / 1e6


def milliseconds(value: float | None) -> str:
    """For the table."""
    return "-" if value is None else f"{value:.3f}"


def main() -> None:
    """Print one line per model and precision."""
    parser = options(__doc__, data=False)
    parser.add_argument(
        "bundles", nargs="*", default=["tiny", "edge"], help="tiny and edge if none"
    )
    parser.add_argument("--side", type=int, default=512, help="of a tile; %(default)s unless given")
    arguments = parser.parse_args()
    machine = describe_machine()
    if machine.gpu is None:
        print("There is no GPU that CUDA may use: nothing was measured.")
        save(arguments.json, {"gpu": None})
        return
    measured = {
        (bundle.record.name, precision): measure(bundle, precision, arguments.side, machine)
        for bundle in map(find_bundle, arguments.bundles)
        for precision in bundle.record.precisions
    }
    print(f"{machine.gpu.name}: ms per tile of {arguments.side}x{arguments.side}")
    header = ["", "bare", "one", f"{AT_ONCE} at once", "computing", "moving", "bare / least"]
    rows = [
        [
            " ".join(key),
            *map(milliseconds, times),
            "-" if times.least is None else f"{times.bare / times.least:.2f}",
        ]
        for key, times in measured.items()
    ]
    print(table(header, rows))
    results = [
        {"model": name, "precision": precision, **times._asdict()}
        for (name, precision), times in measured.items()
    ]
    save(arguments.json, {"gpu": machine.gpu.name, "side": arguments.side, "times": results})


if __name__ == "__main__":
    main()
