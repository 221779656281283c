"""Neural denoising of camera RAW, without torch: frames, bundles, backends and the denoiser.

Names are loaded when they are first used, so that importing the package costs nothing and the
command line can print its help without numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cycleisp_runtime.bayer import Phase
    from cycleisp_runtime.bundle import Bundle, find_bundle
    from cycleisp_runtime.denoiser import Denoised, Denoiser, Denoising
    from cycleisp_runtime.errors import (
        BackendError,
        BundleError,
        CalibrationError,
        CycleISPError,
        InputError,
        OutOfMemoryError,
        OutputError,
        SettingsError,
    )
    from cycleisp_runtime.frame import Area, Camera, Exposure, FloatFrame, RawFrame
    from cycleisp_runtime.noise import NoiseModel
    from cycleisp_runtime.pictures import DenoisedPicture, PictureDenoiser, PictureDenoising

__all__ = [
    "Area",
    "BackendError",
    "Bundle",
    "BundleError",
    "CalibrationError",
    "Camera",
    "CycleISPError",
    "Denoised",
    "DenoisedPicture",
    "Denoiser",
    "Denoising",
    "Exposure",
    "FloatFrame",
    "InputError",
    "NoiseModel",
    "OutOfMemoryError",
    "OutputError",
    "Phase",
    "PictureDenoiser",
    "PictureDenoising",
    "RawFrame",
    "SettingsError",
    "find_bundle",
]

_NAMES_OF_MODULES = {
    "bayer": ("Phase",),
    "bundle": ("Bundle", "find_bundle"),
    "denoiser": ("Denoised", "Denoiser", "Denoising"),
    "errors": (
        "BackendError",
        "BundleError",
        "CalibrationError",
        "CycleISPError",
        "InputError",
        "OutOfMemoryError",
        "OutputError",
        "SettingsError",
    ),
    "frame": ("Area", "Camera", "Exposure", "FloatFrame", "RawFrame"),
    "noise": ("NoiseModel",),
    "pictures": ("DenoisedPicture", "PictureDenoiser", "PictureDenoising"),
}
_MODULE_OF_NAME = {name: module for module, names in _NAMES_OF_MODULES.items() for name in names}


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF_NAME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULE_OF_NAME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
