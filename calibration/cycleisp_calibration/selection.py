"""Which tiles a set takes: evenly from all strata, none of them twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cycleisp_calibration.measures import STRATA

__all__ = ["NEAR", "choose_tiles"]

NEAR = 0.02
"""Tiles whose prints differ by less (rms) are near-duplicates: five codes of 255, as in a burst or
in the same place at another noise. Of 1155 tiles of 99 photographs 7 % have such a
neighbour: black, blown and empty skies; the nearest of the middle one is at 0.09."""


def choose_tiles(
    strata: Sequence[str],
    prints: npt.NDArray[np.float32],
    count: int,
    rng: np.random.Generator,
) -> tuple[list[int], int]:
    """Indices of at most ``count`` candidates, and how many near-duplicates were passed over.

    The strata take turns, each with a random one of its candidates that is not near one already
    chosen, until there are enough or none are left; so any beginning of the result is even, too,
    first of all in noise.

    Args:
        strata: of every candidate.
        prints: (candidates, n) float32, what ``fingerprint`` gives of each.
        count: how many tiles are wanted.
        rng: the same state and candidates give the same result.
    """
    shuffled = rng.permutation(len(strata))
    waiting = {name: [int(each) for each in shuffled if strata[each] == name] for name in STRATA}
    chosen: list[int] = []
    duplicates = 0
    while any(waiting.values()):
        for candidates in waiting.values():
            while candidates:
                candidate = candidates.pop()
                differences = np.square(prints[chosen] - prints[candidate]).mean(axis=1)
                if (differences >= NEAR**2).all():
                    chosen.append(candidate)
                    break
                duplicates += 1
            if len(chosen) == count:
                return chosen, duplicates
    return chosen, duplicates
