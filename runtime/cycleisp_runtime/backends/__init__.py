"""Backends: what runs a bundle's network on one tile. One file each, behind one small protocol."""

from __future__ import annotations

from abc import abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Backend"]


class Backend(Protocol):
    """A network that is ready to run; a context manager that closes it.

    Subclass it: ``run`` and the two facts are all that a backend must give. The caller checks what
    comes out, so that a backend stays short.

    Attributes:
        name: the backend as ``runs_on`` in a bundle writes it.
        precision: the precision it runs at, as the bundle names it.
    """

    name: str
    precision: str

    @abstractmethod
    def run(
        self,
        noisy: npt.NDArray[np.float32],
        variance: npt.NDArray[np.float32],
        noise_scale: float,
    ) -> npt.NDArray[np.float32]:
        """Denoised tile (N, 4, h, w) float32, normalised; it may be overwritten by the next run.

        Args:
            noisy: (N, 4, h, w) float32, normalised, R, Gr, Gb, B; C-contiguous.
            variance: the same shape, the variance map.
            noise_scale: sqrt of the mean of the frame's variance map.

        Raises:
            BackendError: where the backend fails.
        """

    def close(self) -> None:
        """Give memory back; ``run`` must not be called afterwards. May be called twice."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
