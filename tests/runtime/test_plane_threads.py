"""Laws of threads over planes: nothing changes but the time, and none is left behind."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.backends.identity import IdentityBackend
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.frame import RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.plane_threads import PlaneThreads
from tests.helpers import a_bundle
from tests.strategies import frames

PATIENCE_S = 10.0
"""Threads that have not met by then never will."""

NOISE = NoiseModel.uniform(1e-3, 1e-6)


class Threaded(IdentityBackend):
    """Says that it uses so many threads."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        self.threads = threads


@given(
    frame=frames(),
    threads=st.integers(2, 6),
    strength=st.sampled_from([0.3, 1.0]),
    tile=st.sampled_from([10, 512]),
)
def test_threads_change_no_sample(
    frame: RawFrame, threads: int, strength: float, tile: int
) -> None:
    found = []
    for each in (1, threads):
        with Denoiser(a_bundle(), Threaded(each)) as denoiser:
            found.append(denoiser(frame, noise=NOISE, strength=strength, tile=tile))
    np.testing.assert_array_equal(found[1].frame.samples, found[0].frame.samples)
    assert found[1].trust == found[0].trust


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 9])
def test_so_many_threads_do_every_plane_once_and_close_ends_them(threads: int) -> None:
    before, done, workers = set(threading.enumerate()), [], set()
    planes, all_at_work = PlaneThreads(threads), threading.Barrier(min(threads, 4))

    def work(plane: int) -> None:
        done.append(plane)
        if threading.current_thread() not in workers:
            workers.add(threading.current_thread())
            all_at_work.wait(PATIENCE_S)

    planes(work)
    assert sorted(done) == [0, 1, 2, 3]
    assert len(workers) == min(threads, 4)
    assert threading.current_thread() in workers
    planes.close()
    planes.close()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("failing", [0, 3])
def test_an_error_arrives_when_no_thread_is_at_work(
    error: type[BaseException], failing: int
) -> None:
    planes, at_work = PlaneThreads(2), set[int]()

    def work(plane: int) -> None:
        if plane == failing:
            raise error
        at_work.add(plane)
        time.sleep(0.01)
        at_work.remove(plane)

    with pytest.raises(error):
        planes(work)
    assert not at_work
    planes.close()
