"""A backend that denoises nothing: for tests, and to time everything around a network."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.backends import Backend

__all__ = ["IdentityBackend"]


class IdentityBackend(Backend):
    """Gives back the noisy tile."""

    name = "identity"
    precision = "fp32"

    def run(
        self,
        noisy: npt.NDArray[np.float32],
        variance: npt.NDArray[np.float32],  # noqa: ARG002  the protocol's
        noise_scale: float,  # noqa: ARG002  the protocol's
    ) -> npt.NDArray[np.float32]:
        """A copy of ``noisy``."""
        return noisy.copy()
