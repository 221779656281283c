"""Arrays on a GPU whose library speaks DLPack alone: the tensor in its capsule, as dlpack.h has it.

The capsule is looked at and never consumed, so that it frees what it holds when it is let go.
"""

from __future__ import annotations

import ctypes
from typing import Any

__all__ = ["dlpack_interface", "is_on_gpu"]

ON_GPU = (2, 13)
"""kDLCUDA and kDLCUDAManaged of DLDeviceType."""

KINDS = {0: "i", 1: "u", 2: "f"}
"""DLDataTypeCode as NumPy's letters; the others are no numbers here."""

NO_WAITING = -1
"""The stream for which a library does not order its work on the array before ours."""


class _Tensor(ctypes.Structure):
    """DLTensor, with which DLManagedTensor begins."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def is_on_gpu(array: object) -> bool:
    """Whether an array says by DLPack that it lies in the memory of an NVIDIA GPU."""
    device = getattr(array, "__dlpack_device__", None)
    return device is not None and device()[0] in ON_GPU


def dlpack_interface(array: Any) -> dict[str, Any]:  # noqa: ANN401  of any library
    """What ``__cuda_array_interface__`` of version 2 would say, and the capsule it is true of.

    Raises:
        BufferError: where the library does not share the array; or whatever else it raises then.
    """
    capsule = array.__dlpack__(stream=NO_WAITING)
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _Tensor.from_address(pointer(capsule, b"dltensor"))
    size = tensor.bits * tensor.lanes // 8
    strides = tensor.strides[: tensor.ndim] if tensor.strides else None
    return {
        "shape": tuple(tensor.shape[: tensor.ndim]),
        "typestr": f"<{KINDS.get(tensor.code, 'V')}{size}",
        "strides": strides and tuple(step * size for step in strides),
        "data": ((tensor.data or 0) + tensor.byte_offset, False),
        "capsule": capsule,
    }
