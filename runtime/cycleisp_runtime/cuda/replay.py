"""A network's work as a CUDA graph: dozens of kernels by one call instead of one call each.

Each call costs some microseconds of CPU time, which small tiles do not hide. A graph holds shapes
and addresses as they were when it was captured. What is captured must have been run with its shapes
before, as TensorRT prepares for new ones in ways that no graph can hold (see "CUDA Graphs" in its
developer guide).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from contextlib import ExitStack, suppress

from cycleisp_runtime.cuda import CudaDriver, Graph, Stream
from cycleisp_runtime.errors import BackendError

__all__ = ["Replay"]

_log = logging.getLogger(__name__)


class Replay:
    """Runs the same work in one stream again and again.

    Where it cannot be captured it is asked for each time, which is logged once.

    Args:
        cuda: the driver, its context current.
        stream: all the work is asked of it.
        capturable: whether work that was run before may be captured now.
        lifetime: forgets the graphs when it is closed.
    """

    def __init__(
        self,
        cuda: CudaDriver,
        stream: Stream,
        capturable: Callable[[], bool],
        lifetime: ExitStack,
    ) -> None:
        self._cuda, self._stream, self._capturable = cuda, stream, capturable
        self._shapes: Hashable = None
        self._graphs: dict[Hashable, Graph] = {}
        self._kept = ExitStack()
        self._possible = True
        lifetime.callback(self._forget)

    def run(self, shapes: Hashable, addresses: Hashable, ask: Callable[[], None]) -> None:
        """Have the stream do what ``ask`` asks of it.

        Args:
            shapes: of the tensors; graphs of other shapes are forgotten.
            addresses: of the tensors.
            ask: asks for the same work whenever shapes and addresses are the same.

        Raises:
            BackendError: as ``ask`` does, or where the driver fails.
        """
        if shapes != self._shapes:
            self._forget()
            ask()
            self._shapes = shapes
            return
        if self._possible and addresses not in self._graphs and self._capturable():
            self._capture(addresses, ask)
        if addresses in self._graphs:
            self._cuda.launch_graph(self._graphs[addresses], self._stream)
        else:
            ask()

    def _capture(self, addresses: Hashable, ask: Callable[[], None]) -> None:
        try:
            self._cuda.begin_capture(self._stream)
            try:
                ask()
            except BaseException:
                with suppress(BackendError):  # what was captured so far is of no use
                    self._cuda.destroy_graph(self._cuda.end_capture(self._stream))
                raise
            graph = self._graphs[addresses] = self._cuda.end_capture(self._stream)
            self._kept.callback(self._cuda.destroy_graph, graph)
        except BackendError as error:
            self._possible = False
            # Not the error itself: who keeps the record would keep TensorRT's context with it.
            _log.warning("the network runs without a CUDA graph: %s", str(error))

    def _forget(self) -> None:
        self._shapes = None
        self._graphs.clear()
        self._kept.close()
