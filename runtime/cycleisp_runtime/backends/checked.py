"""One run of a network, and the check that a picture came out of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.backends import Backend
from cycleisp_runtime.bundle import BundleRecord
from cycleisp_runtime.errors import BackendError
from cycleisp_runtime.plane_threads import PlaneThreads

__all__ = ["no_picture", "run_checked"]


def run_checked(
    backend: Backend,
    record: BundleRecord,
    inputs: Mapping[str, npt.NDArray[np.float32]],
    planes: PlaneThreads | None = None,
) -> npt.NDArray[np.float32]:
    """Denoised tiles, of the shape of the noisy ones and finite; the next run may overwrite them.

    Args:
        backend: runs the network.
        record: of its bundle.
        inputs: as ``record.tensors.fill`` gives them.
        planes: what looks through the four planes of RAW tiles; None for the caller's thread.

    Raises:
        BackendError: where the backend fails or puts out something that is no picture.
    """
    shape = inputs[record.tensors.noisy].shape
    denoised = backend.run(inputs)
    fit = denoised.shape == shape
    sums = np.zeros(shape[1])

    def add_up(plane: int) -> None:
        with np.errstate(invalid="ignore", over="ignore"):
            sums[plane] = denoised[:, plane].sum()

    if fit and planes is not None:
        planes(add_up)
    elif fit:
        for plane in range(shape[1]):
            add_up(plane)
    # A sum is not finite where any number is not; np.isfinite would need memory for every one.
    if not fit or not np.isfinite(sums).all():
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
