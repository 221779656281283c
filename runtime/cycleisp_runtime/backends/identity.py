"""A backend that denoises nothing: for tests, and to time everything around a network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.backends import Backend

__all__ = ["IdentityBackend"]


class IdentityBackend(Backend):
    """Gives back the noisy tile.

    Args:
        noisy: name of the input that is given back.
    """

    name = "identity"
    precision = "fp32"

    def __init__(self, noisy: str = "noisy") -> None:
        self._noisy = noisy

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """A copy of the noisy tile."""
        return inputs[self._noisy].copy()
