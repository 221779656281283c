"""The four planes of a tile at work at the same time: NumPy lets other threads run meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from cycleisp_runtime.bayer import PLANES

__all__ = ["PlaneThreads"]


class PlaneThreads:
    """Does some work for every plane, on threads that are kept; called by one thread at a time.

    Args:
        threads: the caller's own included; more than there are planes are not used.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = min(threads, len(PLANES))
        self._pool = ThreadPoolExecutor(self._threads - 1) if self._threads > 1 else None

    def __call__(self, work: Callable[[int], None]) -> None:
        """Have ``work`` done for planes 0..3; when this returns or raises, no thread is at it."""
        if self._pool is None:
            for plane in range(len(PLANES)):
                work(plane)
            return
        # Neighbours stay together: R and Gr lie in the same lines of cache.
        own = -(-len(PLANES) // self._threads)
        others: list[Future[None]] = []
        try:
            others.extend(self._pool.submit(work, plane) for plane in range(own, len(PLANES)))
            for plane in range(own):
                work(plane)
            for other in others:
                other.result()
        finally:
            wait(others)

    def close(self) -> None:
        """End the threads. May be called twice."""
        if self._pool is not None:
            self._pool.shutdown()
