"""One run of a network, and the check that a picture came out of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.backends import Backend
from cycleisp_runtime.bundle import BundleRecord
from cycleisp_runtime.errors import BackendError

__all__ = ["no_picture", "run_checked"]


def run_checked(
    backend: Backend, record: BundleRecord, inputs: Mapping[str, npt.NDArray[np.float32]]
) -> npt.NDArray[np.float32]:
    """Denoised tiles, of the shape of the noisy ones and finite; the next run may overwrite them.

    Args:
        backend: runs the network.
        record: of its bundle.
        inputs: as ``record.tensors.fill`` gives them.

    Raises:
        BackendError: where the backend fails or puts out something that is no picture.
    """
    shape = inputs[record.tensors.noisy].shape
    denoised = backend.run(inputs)
    fit = denoised.shape == shape
    # Both are NaN where any number is; np.isfinite would need memory for every one.
    if not fit or not np.isfinite([denoised.min(), denoised.max()]).all():
        raise no_picture(
            record, backend.name, None if fit else f"shape {denoised.shape}", f"shape {shape}"
        )
    return denoised


def no_picture(
    record: BundleRecord, backend: str, met: str | None = None, wanted: str = ""
) -> BackendError:
    """What to raise for an output that is no picture: NaN or infinity where nothing else is met."""
    return BackendError(
        f"the network's output {record.tensors.denoised!r} is not a picture",
        subject=f"{record.name} on {backend}",
        met=met or "NaN or infinity",
        wanted=wanted if met else "finite numbers",
        hint="check the samples and the noise that were given, or use another model",
    )
