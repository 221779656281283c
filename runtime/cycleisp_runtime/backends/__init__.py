"""Backends: what runs a bundle's network on one tile. One file each, behind one small protocol."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
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
    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """Denoised tiles (N, C, h, w) float32; they may be overwritten by the next run.

        Args:
            inputs: the graph's inputs by the names that the bundle gives them (``TensorNames``),
                all float32 and C-contiguous.

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
