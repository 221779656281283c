"""Laws of the choice: even, without near-duplicates, the same from the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_calibration.measures import STRATA
from cycleisp_calibration.selection import NEAR, choose_tiles

Prints = npt.NDArray[np.float32]


@st.composite
def candidates(draw: st.DrawFn) -> tuple[list[str], Prints]:
    """Up to 60 candidates of few strata; some share a print, others differ by more than NEAR."""
    strata = draw(st.lists(st.sampled_from(STRATA[:5]), max_size=60))
    scenes = draw(
        st.lists(st.integers(0, 40), min_size=len(strata), max_size=len(strata))
        if draw(st.booleans())
        else st.just(list(range(len(strata))))
    )
    prints = np.array([[2 * NEAR * scene] * 4 for scene in scenes], np.float32)
    return strata, prints.reshape(-1, 4)


counts, seeds = st.integers(1, 70), st.integers(0, 2**32 - 1)


@given(candidates(), counts, seeds)
def test_no_two_tiles_are_near(material: tuple[list[str], Prints], count: int, seed: int) -> None:
    strata, prints = material
    chosen, duplicates = choose_tiles(strata, prints, count, np.random.default_rng(seed))
    scenes = {float(value) for value in prints[chosen, 0]}
    assert len(scenes) == len(chosen) == len(set(chosen))
    assert len(chosen) + duplicates <= len(strata)
    every_scene = len({float(value) for value in prints[:, 0]})
    assert len(chosen) == min(count, every_scene)


@given(candidates(), counts, seeds)
def test_strata_are_filled_evenly_at_every_length(
    material: tuple[list[str], Prints], count: int, seed: int
) -> None:
    strata, _ = material
    distinct = np.arange(4 * len(strata), dtype=np.float32).reshape(-1, 4)
    chosen, _ = choose_tiles(strata, distinct, count, np.random.default_rng(seed))
    there = Counter(strata)
    for length in range(1, len(chosen) + 1):
        met = Counter(strata[index] for index in chosen[:length])
        open_ = [met[name] for name in there if met[name] < there[name]]
        if open_:
            assert max(met.values()) <= min(open_) + 1


@given(candidates(), counts, seeds)
def test_the_choice_repeats(material: tuple[list[str], Prints], count: int, seed: int) -> None:
    first, second = (choose_tiles(*material, count, np.random.default_rng(seed)) for _ in range(2))
    assert first == second
