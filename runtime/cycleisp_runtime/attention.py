"""Channel attention of networks that pool over the frame: its gates, taken once per frame.

All tiles of a frame get the same gates, so no seam is seen wherever the tiles lie. They come from
the bundle's statistics graph, which sees the frame as one tile: every n-th sample of it, which
costs a 1/n^2 of the network and is close (``Pooling.agreement_db``), or all of it, which is exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.bayer import packed_size
from cycleisp_runtime.bundle import Bundle
from cycleisp_runtime.errors import BundleError, OutOfMemoryError
from cycleisp_runtime.frame import Area, FloatFrame, RawFrame
from cycleisp_runtime.memory import budget_for, share_of
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.tiles import MosaicTiles, TilePlan, plan_tiles

__all__ = ["Attention", "every_nth_cell", "frame_gates", "whole"]

LEAST_SIDE = 64
"""Of the frame that gates are taken from, in packed samples: smaller frames are decimated less."""

FEATURE_MAPS = 10
"""Float32 maps of all channels that ONNX Runtime holds at a time, at most: the full RAW denoiser
was seen to take 2.7 kB per packed sample, the small one 0.8 kB."""

MACS_PER_GATE_AND_CHANNEL = 20
"""A dual attention block of C channels has C gates and spends 18 C^2 multiply-adds per position in
its two 3x3 convolutions and 2 C^2 in the 1x1 convolution. The network's other convolutions make the
number of channels, and with it the memory, look larger than it is."""

_Planes = npt.NDArray[np.float32]
_Gates = npt.NDArray[np.float32]


class Attention:
    """The statistics graph of a bundle, ready to run on the CPU whatever runs the tiles.

    Args:
        bundle: of a network that pools.
        threads: of one operator.
        memory: budget in bytes for everything but the frames, of which the graph may take its
            ``share_of``; None for what the system can give.

    Attributes:
        record: of the bundle.

    Raises:
        BundleError: where the network does not pool, or its statistics graph is not what the bundle
            says or must not be trusted.
        BackendError: where ONNX Runtime does not accept the graph.
    """

    def __init__(self, bundle: Bundle, *, threads: int, memory: int | None = None) -> None:
        from cycleisp_runtime.backends.onnxruntime import OnnxGraph

        self.record = bundle.record
        self._memory = memory
        self._held = 0
        """Bytes that ONNX Runtime took for the largest frame, and keeps."""
        pooling, tensors = bundle.record.pooling, bundle.record.tensors
        network = bundle.statistics()
        if pooling is None or tensors.gates is None:
            raise BundleError("the network takes no gates", subject=bundle.folder)
        subject = str(bundle.folder / pooling.statistics.file)
        self._gates, self._pooling = tensors.gates, pooling
        self._graph = OnnxGraph(network, subject, threads=threads)
        wanted = sorted({*tensors.inputs} - {tensors.gates})
        if sorted(self._graph.inputs) != wanted or tensors.gates not in self._graph.outputs:
            raise BundleError(
                "the statistics graph is not the one that the bundle describes",
                subject=subject,
                met=f"{', '.join(self._graph.inputs)} to {', '.join(self._graph.outputs)}",
                wanted=f"{', '.join(wanted)} to {tensors.gates}",
            )

    def step(self, rows: int, columns: int, *, exact: bool) -> tuple[int, list[str]]:
        """Every how manieth packed sample of a frame gates are taken from, and what is to be said.

        Args:
            rows: of the frame, in packed samples.
            columns: the same.
            exact: take them from every sample.

        Raises:
            OutOfMemoryError: where memory does not suffice, as far as that is known beforehand.
        """
        free = _available_bytes() + self._held
        share = free if self._memory is None else share_of(self._memory, self.record)
        coarsest = max(1, min(rows, columns) // LEAST_SIDE)
        usual = 1 if exact else min(self._pooling.decimation, coarsest)
        for step in (1,) if exact else range(usual, coarsest + 1):
            needed = self.bytes_per_sample * math.ceil(rows / step) * math.ceil(columns / step)
            if needed <= min(free, share):
                return step, [] if step == usual else [_coarser(step, usual)]
        met, wanted, ways = free, needed, []
        if self._memory is not None and share < free:
            met, wanted = self._memory, math.ceil(budget_for(needed, self.record))
            ways.append("allow more memory")
        if exact:
            ways.append("leave out --exact")
        raise OutOfMemoryError(
            "attention needs more memory than there is",
            subject=self.record.name,
            met=f"{met >> 20} MiB",
            wanted=f"at least {math.ceil(wanted / 2**20)} MiB for {rows}x{columns} packed samples",
            hint=" or ".join(ways) or None,
        )

    def gates(self, inputs: Mapping[str, _Planes]) -> _Gates:
        """Gates (1, G, 1, 1) of one frame.

        Args:
            inputs: of the statistics graph: the frame, or every n-th sample of it, as one tile.

        Raises:
            BackendError: where ONNX Runtime fails.
        """
        rows, columns = inputs[self.record.tensors.noisy].shape[2:]
        gates = np.empty((1, self._pooling.gates, 1, 1), np.float32)
        self._held = max(self._held, self.bytes_per_sample * rows * columns)
        self._graph.run(inputs, self._gates, gates)
        return gates

    @property
    def bytes_per_sample(self) -> int:
        """Memory that the statistics graph takes per packed sample or pixel, estimated."""
        per_position = 4 if self.record.task == "raw" else 1
        macs = 1000 * self.record.kmac_per_sample * per_position
        channels = macs / (MACS_PER_GATE_AND_CHANNEL * self._pooling.gates)
        return int(FEATURE_MAPS * 4 * channels) + 1

    def close(self) -> None:
        """Free the session."""
        self._graph.close()


def frame_gates(
    attention: Attention,
    frame: RawFrame | FloatFrame,
    noise: NoiseModel,
    noise_scale: float,
    *,
    exact: bool,
) -> tuple[_Gates, list[str]]:
    """Gates (1, G, 1, 1) of a RAW frame, and what is to be said about them.

    Args:
        attention: of the network.
        frame: what the camera delivered.
        noise: its noise, in normalised units.
        noise_scale: sqrt of the mean of the frame's variance map.
        exact: take them from the whole frame.

    Raises:
        OutOfMemoryError: where memory does not suffice.
        BackendError: where ONNX Runtime fails.
    """
    record = attention.record
    rows, columns = packed_size(frame.area.height, frame.area.width, frame.cfa)
    step, warnings = attention.step(rows, columns, exact=exact)
    small = every_nth_cell(frame, step)
    rows, columns = packed_size(small.area.height, small.area.width, small.cfa)
    plan = whole(rows, columns, multiple_of=record.multiple_of)
    noisy, variance = np.empty((2, 1, 4, plan.height, plan.width), np.float32)
    MosaicTiles(small, noise, plan).cut(plan.cores[0], noisy[0], variance[0])
    return attention.gates(record.tensors.fill(noisy, variance, noise_scale)), warnings


def whole(rows: int, columns: int, *, multiple_of: int) -> TilePlan:
    """A frame of (rows, columns) packed samples as one tile without a halo."""
    side = max(rows, columns) + multiple_of
    return plan_tiles(rows, columns, side=side, halo=0, multiple_of=multiple_of)


def every_nth_cell(frame: RawFrame | FloatFrame, step: int) -> RawFrame | FloatFrame:
    """The frame of every ``step``-th 2x2 cell in both directions, of the same phase and levels."""
    height, width = frame.visible.shape
    rows = _of_every_nth_cell(height, frame.cfa.red.row, step)
    columns = _of_every_nth_cell(width, frame.cfa.red.column, step)
    cells = rows[:, None], columns
    if isinstance(frame, FloatFrame):
        return replace(frame, samples=frame.visible[cells])
    return replace(
        frame,
        samples=frame.visible[cells],
        area=Area(0, 0, len(rows), len(columns)),
        black_rows=None if frame.black_rows is None else frame.black_rows[rows],
        black_columns=None if frame.black_columns is None else frame.black_columns[columns],
    )


def _of_every_nth_cell(length: int, red: int, step: int) -> npt.NDArray[np.intp]:
    """Places along the mosaic; with red at 1 its first place ends a cell that began outside."""
    places = np.arange(length, dtype=np.intp)
    every_nth: npt.NDArray[np.intp] = places[(places + red) // 2 % step == 0]
    return every_nth


def _coarser(step: int, usual: int) -> str:
    return (
        f"memory did not suffice for attention from one in {usual}x{usual} samples: one in "
        f"{step}x{step} was used, and tiles may agree less with the whole frame than the model says"
    )


def _available_bytes() -> int:
    """Memory that the system can give without swapping; without end where it does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        (kibibytes,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return int(kibibytes) << 10
    except (OSError, ValueError):
        return 1 << 62
