"""Arrays of other libraries: NumPy views of their memory, nothing copied that the host can reach.

What can be taken is a NumPy array, one in host memory that speaks DLPack, or one on a GPU that
speaks it or has ``__cuda_array_interface__``, which is copied to the host and back. What the
denoiser gives by itself are NumPy arrays, which speak DLPack.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.cuda.foreign import HostCopies, gpu_array
from cycleisp_runtime.errors import BackendError, InputError, SettingsError
from cycleisp_runtime.frame import Area, FloatFrame, RawFrame

__all__ = ["SupportsDLPack", "frame_of", "host_array", "target_of"]

HOST = (1, 3)
"""kDLCPU and kDLCUDAHost, which is pinned memory of the host (dlpack.h, DLDeviceType)."""


class SupportsDLPack(Protocol):
    """An array of any library that shares its memory by the DLPack protocol."""

    def __dlpack__(self, *args: Any, **settings: Any) -> Any: ...  # noqa: ANN401  a capsule
    def __dlpack_device__(self) -> tuple[Any, Any]: ...


def host_array(array: object, copies: HostCopies) -> npt.NDArray[Any]:
    """The array itself, a NumPy view of its memory, or a copy of what a GPU holds.

    Args:
        array: of any library.
        copies: makes the copy, and keeps it until it makes the next one.

    Raises:
        BackendError: where it lies in the memory of a GPU that cannot be reached.
        InputError: where it is no array that can be shared.
    """
    if isinstance(array, np.ndarray):
        return array
    on_gpu = gpu_array(array)
    if on_gpu is not None:
        return copies.read(on_gpu)
    device = getattr(array, "__dlpack_device__", lambda: (HOST[0], 0))()[0]
    if device not in HOST:
        raise BackendError(
            "the array lies in the memory of a device that cannot be reached",
            met=type(array).__name__,
            wanted="an array in host memory or on an NVIDIA GPU",
            hint="copy it to the host first",
        )
    try:
        return np.from_dlpack(array)  # type: ignore[arg-type]
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"not an array that can be read here: {error}",
            met=type(array).__name__,
            wanted="a NumPy array, or one that speaks DLPack or has __cuda_array_interface__",
        ) from error


def frame_of(
    source: RawFrame | FloatFrame | SupportsDLPack,
    *,
    cfa: Phase | str | None,
    black: float | tuple[float, float, float, float] | None,
    white: float | None,
    copies: HostCopies,
) -> RawFrame | FloatFrame:
    """The frame itself, or the frame of an array (H, W) uint16 or float32.

    Args:
        source: a frame, or the samples of one, all of them picture.
        cfa: of an array, the phase at its top left corner.
        black: of an array, one level or one per cell position, row by row.
        white: of an array, the level of saturation.
        copies: as for ``host_array``.

    Raises:
        SettingsError: where an array lacks its levels, or a frame gets others beside its own.
        InputError: where it is no such array, or the levels contradict each other.
        BackendError: as ``host_array``.
    """
    if isinstance(source, (RawFrame, FloatFrame)):
        if (cfa, black, white) != (None, None, None):
            raise SettingsError("a frame has its own cfa, black and white; give none beside it")
        return source
    if cfa is None or black is None or white is None:
        raise SettingsError(
            "an array does not say what its samples mean", wanted="cfa, black and white beside it"
        )
    samples = host_array(source, copies)
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


@contextmanager
def target_of(
    target: SupportsDLPack,
    samples: npt.NDArray[Any],
    copies: HostCopies,
    *,
    types: Collection[npt.DTypeLike] = (np.uint16, np.float32),
) -> Iterator[npt.NDArray[Any]]:
    """A NumPy array; what is written into it, ``target`` holds in the end, unless that raises.

    Args:
        target: of the shape of ``samples``, one of the types, writable, apart from ``samples``.
        samples: the frame's or picture's.
        copies: as for ``host_array``.
        types: that the target may have.

    Raises:
        InputError: where it is no such array.
        BackendError: as ``host_array``.
    """
    on_gpu = gpu_array(target)
    array = host_array(target, copies) if on_gpu is None else copies.blank(on_gpu)
    problem = None
    if array.shape != samples.shape or array.dtype not in types:
        problem = "the target is not like the frame"
    elif not (array.flags.writeable if on_gpu is None else on_gpu.writeable):
        problem = "the target cannot be written"
    elif np.may_share_memory(array, samples):
        problem = "the target shares memory with the frame"
    if problem is not None:
        any_of = " or ".join(str(np.dtype(each)) for each in types)
        raise InputError(
            problem,
            met=f"{array.dtype} {array.shape}",
            wanted=f"{any_of} {samples.shape}, writable, memory of its own",
        )
    yield array
    if on_gpu is not None:
        copies.write(on_gpu, array)
