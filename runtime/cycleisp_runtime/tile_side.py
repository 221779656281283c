"""How large tiles are: as large as a budget allows, and smaller from where memory ends on."""

from __future__ import annotations

import logging
from collections.abc import Callable

from cycleisp_runtime.bundle import BundleRecord
from cycleisp_runtime.errors import OutOfMemoryError
from cycleisp_runtime.memory import largest_side, next_smaller_side
from cycleisp_runtime.tiles import TilePlan

__all__ = ["DEFAULT_TILE", "TileSide"]

DEFAULT_TILE = 512
"""Packed samples: a sixth of the work goes into halos of 22, about 130 MB into an edge model's
features. Half of it takes a quarter of the memory and spends a third of the work on halos."""

_log = logging.getLogger(__name__)


class TileSide:
    """The side of tiles, which goes down where memory ends all the same.

    Args:
        record: of the network.
        memory: bytes for everything but the frames, the rest of the process included; None for
            ``DEFAULT_TILE``.
        least: the smallest side that leaves a core.

    Raises:
        SettingsError: where so little memory holds no tile of this network.
    """

    def __init__(self, record: BundleRecord, *, memory: int | None, least: int) -> None:
        self._name, self._least = record.name, least
        self._side = DEFAULT_TILE if memory is None else largest_side(memory, record, least=least)
        self._shrunk: list[str] = []

    def run(
        self,
        asked: int | None,
        plan_for: Callable[[int], tuple[TilePlan, list[str]]],
        fill: Callable[[TilePlan], None],
    ) -> list[str]:
        """Fill a frame, anew with the next smaller tiles where memory ends; what is to be said.

        Args:
            asked: the side to begin with, for this frame only; None for what memory allowed so far.
            plan_for: tiles of at most this side, and what is to be said about them.
            fill: runs a plan.

        Raises:
            OutOfMemoryError: where memory does not suffice for the smallest tile.
        """
        shrunk, side = (self._shrunk, self._side) if asked is None else ([], asked)
        while True:
            plan, warnings = plan_for(side)
            try:
                fill(plan)
            except (OutOfMemoryError, MemoryError) as error:
                tile = max(plan.height, plan.width)
                smaller = next_smaller_side(tile, least=self._least)
                if smaller is None:
                    raise OutOfMemoryError(
                        "memory does not suffice for the smallest tile",
                        subject=self._name,
                        met=f"{plan.height}x{plan.width} with its halo",
                        hint=str(error) or None,
                    ) from error
                side = smaller
                words = f"memory did not suffice for tiles of {tile}: up to {side} were used"
                _log.warning("%s (%s)", words, error)
                shrunk = [*shrunk, words]
                if asked is None:
                    self._side, self._shrunk = side, shrunk
            else:
                return [*warnings, *shrunk]
