"""Arrays of other libraries: NumPy views of their memory, nothing copied.

What can be taken is a NumPy array, or one in host memory that speaks DLPack. What the denoiser
gives are NumPy arrays, which speak DLPack themselves.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.errors import BackendError, InputError, SettingsError
from cycleisp_runtime.frame import Area, FloatFrame, RawFrame

__all__ = ["SupportsDLPack", "frame_of", "host_array", "target_of"]

HOST = (1, 3)
"""kDLCPU and kDLCUDAHost, which is pinned memory of the host (dlpack.h, DLDeviceType)."""


class SupportsDLPack(Protocol):
    """An array of any library that shares its memory by the DLPack protocol."""

    def __dlpack__(self, *args: Any, **settings: Any) -> Any: ...  # noqa: ANN401  a capsule
    def __dlpack_device__(self) -> tuple[Any, Any]: ...


def host_array(array: object) -> npt.NDArray[Any]:
    """The array itself or a NumPy view of its memory.

    Raises:
        BackendError: where it lies in the memory of a GPU.
        InputError: where it is no array that can be shared.
    """
    if isinstance(array, np.ndarray):
        return array
    device = getattr(array, "__dlpack_device__", lambda: (HOST[0], 0))()[0]
    if hasattr(array, "__cuda_array_interface__") or device not in HOST:
        raise BackendError(
            "the array lies in the memory of a GPU, which the denoiser does not read",
            met=type(array).__name__,
            wanted="an array in host memory",
            hint="copy it to the host first",
        )
    try:
        return np.from_dlpack(array)  # type: ignore[arg-type]
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"not an array that can be read here: {error}",
            met=type(array).__name__,
            wanted="a NumPy array, or one in host memory that speaks DLPack",
        ) from error


def frame_of(
    source: RawFrame | FloatFrame | SupportsDLPack,
    *,
    cfa: Phase | str | None,
    black: float | tuple[float, float, float, float] | None,
    white: float | None,
) -> RawFrame | FloatFrame:
    """The frame itself, or the frame of an array (H, W) uint16 or float32, which is not copied.

    Args:
        source: a frame, or the samples of one, all of them picture.
        cfa: of an array, the phase at its top left corner.
        black: of an array, one level or one per cell position, row by row.
        white: of an array, the level of saturation.

    Raises:
        SettingsError: where an array lacks its levels, or a frame gets others beside its own.
        InputError: where it is no such array, or the levels contradict each other.
        BackendError: where it lies in the memory of a GPU.
    """
    if isinstance(source, (RawFrame, FloatFrame)):
        if (cfa, black, white) != (None, None, None):
            raise SettingsError("a frame has its own cfa, black and white; give none beside it")
        return source
    if cfa is None or black is None or white is None:
        raise SettingsError(
            "an array does not say what its samples mean", wanted="cfa, black and white beside it"
        )
    samples = host_array(source)
    levels = black if isinstance(black, tuple) else (black,) * 4
    try:
        phase = Phase(cfa)
    except ValueError as error:
        raise SettingsError(
            "no phase", subject="cfa", met=cfa, wanted=" or ".join(each.value for each in Phase)
        ) from error
    if samples.dtype == np.float32:
        return FloatFrame(samples, phase, levels, white)
    height, width = (*samples.shape, 0, 0)[:2]  # of any rank: the frame refuses all but 2
    return RawFrame(samples, phase, levels, white, Area(0, 0, height, width))


def target_of(
    target: SupportsDLPack, samples: npt.NDArray[Any]
) -> npt.NDArray[np.uint16] | npt.NDArray[np.float32]:
    """A NumPy view of an array that denoised samples can be written into.

    Args:
        target: (H, W) uint16 or float32, writable, apart from ``samples``.
        samples: (H, W), the frame's.

    Raises:
        InputError: where it is no such array.
        BackendError: where it lies in the memory of a GPU.
    """
    array = host_array(target)
    problem = None
    if array.shape != samples.shape or array.dtype not in (np.uint16, np.float32):
        problem = "the target is not like the frame"
    elif not array.flags.writeable:
        problem = "the target cannot be written"
    elif np.may_share_memory(array, samples):
        problem = "the target shares memory with the frame"
    if problem is not None:
        raise InputError(
            problem,
            met=f"{array.dtype} {array.shape}",
            wanted=f"uint16 or float32 {samples.shape}, writable, memory of its own",
        )
    return array
