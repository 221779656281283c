"""What a device could compute at best, dense, from data sheets.

Makers print "sparse" figures first: twice the dense ones, for weights of which half are zero. Here
all are dense. Where the power mode changes the number of multiprocessors and the clock, as on a
Jetson, the peak comes of those at hand.
"""

from __future__ import annotations

from typing import NamedTuple

from cycleisp_runtime.bench.record import Machine
from cycleisp_runtime.bundle import Precision

__all__ = ["Peak", "peak"]


class Peak(NamedTuple):
    """1e12 operations per second, an add or a multiply each one, and where that is known from."""

    tops: float
    source: str


class _Board(NamedTuple):
    fp16: float
    int8: float
    source: str


_BOARDS = {
    "H200": _Board(989, 1979, "NVIDIA H200 data sheet, SXM"),
    "H100": _Board(989, 1979, "NVIDIA H100 data sheet, SXM"),
    "L4": _Board(121, 242, "NVIDIA L4 data sheet"),
    "A2": _Board(18, 36, "NVIDIA A2 data sheet"),
    "RTX 5090": _Board(210, 838, "NVIDIA RTX Blackwell whitepaper, FP16 summed in FP32"),
    "RTX 4090": _Board(165, 661, "NVIDIA Ada whitepaper, FP16 summed in FP32"),
}
"""By a part of the GPU's name, in tera-operations per second."""


class _Chip(NamedTuple):
    fp16: int
    int8: int | None
    source: str


_CHIPS = {
    (8, 7): _Chip(2048, 4096, "Orin: 4 tensor cores of 512 FP16 or 1024 INT8 operations"),
    (11, 0): _Chip(8192, None, "Thor: 258 TFLOPS of 20 multiprocessors at 1.57 GHz, second-hand"),
}
"""Operations of one multiprocessor in one clock, by compute capability. Orin's come to the 85 TOPS
of NVIDIA's data sheet for 16 multiprocessors at 1.3 GHz."""


def peak(
    machine: Machine, precision: Precision, *, on_gpu: bool, threads: int | None
) -> Peak | None:
    """The peak of the device that the network ran on; None where the tables do not know it.

    Args:
        machine: with the clocks of its power mode.
        precision: of the network.
        on_gpu: whether the GPU ran it.
        threads: on the CPU; None for one per core.
    """
    if on_gpu:
        return _gpu_peak(machine, precision)
    return _cpu_peak(machine, precision, min(threads or machine.cores, machine.cores))


def _gpu_peak(machine: Machine, precision: Precision) -> Peak | None:
    gpu = machine.gpu
    if gpu is None or precision == "fp32":  # whose rate depends on whether TF32 is allowed
        return None
    for name, board in _BOARDS.items():
        if name in gpu.name.removeprefix("NVIDIA ").removeprefix("GeForce "):
            return Peak(board.fp16 if precision == "fp16" else board.int8, board.source)
    chip = _CHIPS.get(gpu.compute_capability)
    if chip is None or machine.gpu_mhz is None:
        return None
    per_clock = chip.fp16 if precision == "fp16" else chip.int8
    if per_clock is None:
        return None
    tops = gpu.multiprocessors * per_clock * machine.gpu_mhz / 1e6
    return Peak(tops, f"{chip.source}, {gpu.multiprocessors} at {machine.gpu_mhz:.0f} MHz")


def _cpu_peak(machine: Machine, precision: Precision, cores: int) -> Peak | None:
    """Two units of fused multiply-add per core, each as wide as the instruction set.

    Intel 64 and IA-32 Architectures Optimization Reference Manual (Haswell and later: two 256-bit
    units; Xeon Scalable: two of 512 bits); Arm Cortex-A78 Software Optimization Guide (two of 128
    bits). AMD splits 512-bit operations up to Zen 4 into halves: its peak is stated as that of
    AVX2, which later ones may exceed.
    VNNI and ASIMD's dot product do four INT8 multiply-adds in the place of one of FP32.
    """
    has = set(machine.cpu_features)
    halves = "EPYC" in machine.cpu or "Ryzen" in machine.cpu
    if "avx512f" in has and not halves:
        lanes, name = 16, "AVX-512"
    elif {"avx2", "fma"} <= has:
        lanes, name = 8, "AVX2"
    elif "asimd" in has:
        lanes, name = 4, "ASIMD"
    else:
        return None
    quick_int8 = has & {"avx512_vnni", "avx_vnni", "asimddp"}
    if machine.cpu_mhz is None or precision == "fp16" or (precision == "int8" and not quick_int8):
        return None
    per_clock = 2 * 2 * lanes * (4 if precision == "int8" else 1)
    clock = f"{cores} cores at the {machine.cpu_mhz:.0f} MHz that the system tells"
    return Peak(cores * per_clock * machine.cpu_mhz / 1e6, f"two {name} units, {clock}")
