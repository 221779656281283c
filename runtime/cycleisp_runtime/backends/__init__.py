"""Backends: what runs a bundle's network on one tile. One file each, behind one small protocol."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from typing_extensions import Self

    from cycleisp_runtime.cuda.passes import FramePasses
    from cycleisp_runtime.tiles import Core

__all__ = ["Backend", "Device", "RunFrame"]

Device = Literal["cpu", "cuda"]
RunFrame = Callable[["FramePasses", Mapping[str, npt.NDArray[np.float32]]], Iterator["Core"]]


class Backend(Protocol):
    """A network that is ready to run; a context manager that closes it.

    Subclass it: ``run`` and the facts are all that a backend must give. The caller checks what
    comes out, so that a backend stays short.

    Attributes:
        name: the backend as ``runs_on`` in a bundle writes it.
        precision: the precision it runs at, as the bundle names it.
        device: where it runs.
        reason: why this backend and precision were chosen, where the program chose.
        batch: how many tiles a run should get where memory allows.
        threads: of the CPU that it uses; the passes before and after it may use as many.
        seconds: that the last tile took on the device by its own clock: "upload", "compute",
            "download"; empty where the backend has no such clock.
        run_frame: fills a frame tile by tile, cut and stitched where the network runs, and gives
            every core once it stands there; raises what ``run`` does. Gets the tiles, and the
            graph's inputs of one tile, of which noisy and variance stand for their shapes alone.
            None where the caller must cut and stitch.
    """

    name: str
    precision: str
    device: Device = "cpu"
    reason: str = "as asked for"
    batch: int = 1
    threads: int = 1
    seconds: Mapping[str, float] = MappingProxyType({})
    run_frame: RunFrame | None = None

    @abstractmethod
    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """Denoised tiles (N, C, h, w) float32; they may be overwritten by the next run.

        Args:
            inputs: the graph's inputs by the names that the bundle gives them (``TensorNames``),
                all float32 and C-contiguous.

        Raises:
            OutOfMemoryError: where memory does not suffice for these tiles; fewer or smaller ones
                may still be run.
            BackendError: where the backend fails otherwise.
        """

    def close(self) -> None:
        """Give memory back; ``run`` must not be called afterwards. May be called twice."""
        return

    def __str__(self) -> str:
        return f"{self.name} {self.precision} on {self.device}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
