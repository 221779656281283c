"""A network run over the tiles of frames, within the memory there is.

The arrays of a run are kept from frame to frame. Where memory ends all the same, on the host or on
a GPU, the frame starts again with the next smaller tile, and so do the frames after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.bayer import packed_size
from cycleisp_runtime.bundle import BundleRecord
from cycleisp_runtime.frame import FloatFrame, RawFrame
from cycleisp_runtime.memory import tiles_within
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.plane_threads import PlaneThreads
from cycleisp_runtime.stopwatch import Stopwatch
from cycleisp_runtime.tile_side import DEFAULT_TILE, TileSide
from cycleisp_runtime.tiles import Core, MosaicTiles, TilePlan, plan_tiles

__all__ = ["DEFAULT_TILE", "TileRunner"]

_Tiles = npt.NDArray[np.float32]
_Samples = npt.NDArray[np.uint16] | npt.NDArray[np.float32]
_Network = Callable[[_Tiles, _Tiles], _Tiles]
_OnBackend = Callable[[TilePlan], Iterator[Core]]


class TileRunner:
    """Denoises frames tile by tile.

    Args:
        record: of the network.
        batch: how many tiles a run should get where memory allows. 1 on a CPU, where a batch saves
            nothing: the edge model takes 347 ms per MP on one core for a tile of 80x80, and 345 in
            a batch of 16 of them.
        memory: bytes for everything but the frames, the rest of the process included; they choose
            tile and batch. None for ``DEFAULT_TILE`` and the whole batch.
        planes: what works on the planes of a tile.

    Raises:
        SettingsError: where so little memory holds no tile of this network.
    """

    def __init__(
        self, record: BundleRecord, *, batch: int, memory: int | None, planes: PlaneThreads
    ) -> None:
        self._record = record
        self._planes = planes
        self._batch = batch
        self._memory = memory
        least = 2 * record.halo.for_90_db + 3 * record.multiple_of
        self._side = TileSide(record, memory=memory, least=least)
        self._arrays = np.empty((2, 0, 4, 0, 0), np.float32)

    def run(
        self,
        frame: RawFrame | FloatFrame,
        noise: NoiseModel,
        network: _Network,
        target: _Samples,
        *,
        on_backend: _OnBackend | None = None,
        side: int | None,
        strength: float,
        level_scale: int,
        watch: Stopwatch,
        progress: Callable[[int, int], None] | None,
    ) -> list[str]:
        """Fill ``target``, the picture area of the new frame; what is to be said about the tiles.

        Args:
            frame: what the camera delivered.
            noise: its noise, in normalised units.
            network: noisy tiles (N, 4, h, w) and their variance maps to denoised tiles.
            target: as for ``MosaicTiles.stitch``, as are strength and level scale.
            on_backend: fills ``target`` by a plan where the backend cuts and stitches too, and
                gives every core that stands in it; None where this is to be done here.
            side: of a tile in packed samples, halo included; None for what memory allows.
            strength: share of the network's output in the new frame.
            level_scale: factor from the input's levels to the output's.
            watch: gets the steps "cut", "network" and "stitch".
            progress: called with (tiles done, tiles in all).

        Raises:
            SettingsError: where the tile is too small for the halo.
            OutOfMemoryError: where memory does not suffice for the smallest tile.
        """

        def fill(plan: TilePlan) -> None:
            if on_backend is None:
                self._fill(
                    frame, noise, network, target, plan, strength, level_scale, watch, progress
                )
                return
            with watch.step("network"):
                for done, _ in enumerate(on_backend(plan), 1):
                    if progress is not None:
                        progress(done, len(plan.cores))

        return self._side.run(side, lambda longest: self._plan(frame, longest), fill)

    def close(self) -> None:
        """Give the memory back."""
        self._arrays = np.empty((2, 0, 4, 0, 0), np.float32)

    def _fill(
        self,
        frame: RawFrame | FloatFrame,
        noise: NoiseModel,
        network: _Network,
        target: _Samples,
        plan: TilePlan,
        strength: float,
        level_scale: int,
        watch: Stopwatch,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """All tiles of this plan, as many per run as memory allows."""
        tiles = MosaicTiles(frame, noise, plan, self._planes)
        noisy, variance = self._arrays_for(plan)
        for start in range(0, len(plan.cores), len(noisy)):
            cores = plan.cores[start : start + len(noisy)]
            with watch.step("cut"):
                for slot, core in enumerate(cores):
                    tiles.cut(core, noisy[slot], variance[slot])
            with watch.step("network"):
                denoised = network(noisy[: len(cores)], variance[: len(cores)])
            with watch.step("stitch"):
                for slot, core in enumerate(cores):
                    tiles.stitch(
                        core,
                        denoised[slot],
                        target,
                        strength=strength,
                        level_scale=level_scale,
                        scratch=(noisy[slot], variance[slot]),
                    )
            if progress is not None:
                progress(start + len(cores), len(plan.cores))

    def _plan(self, frame: RawFrame | FloatFrame, side: int) -> tuple[TilePlan, list[str]]:
        """Tiles for this frame, with the better halo where it leaves half of a tile's side."""
        halo, warnings = self._record.halo.for_120_db, []
        if side < 4 * halo:
            halo = self._record.halo.for_90_db
            warnings.append(
                f"tiles of {side} packed samples have room for a halo of {halo} only: they agree "
                "with the whole frame to 90 dB instead of 120"
            )
        rows, columns = packed_size(frame.area.height, frame.area.width, frame.cfa)
        plan = plan_tiles(rows, columns, side=side, halo=halo, multiple_of=self._record.multiple_of)
        return plan, warnings

    def _arrays_for(self, plan: TilePlan) -> tuple[_Tiles, _Tiles]:
        """Noisy tiles and their variance maps (n, 4, plan.height, plan.width), n per run."""
        count = min(self._batch, len(plan.cores))
        if self._memory is not None:
            fitting = tiles_within(self._memory, self._record, plan.height * plan.width)
            count = max(1, min(count, fitting))
        shape = (2, count, 4, plan.height, plan.width)
        if self._arrays.shape != shape:
            self.close()  # before the new ones are made, so that memory never holds both
            self._arrays = np.empty(shape, np.float32)
        noisy, variance = self._arrays
        return noisy, variance
