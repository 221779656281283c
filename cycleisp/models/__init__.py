"""The networks, by name and size."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from cycleisp.models.denoisers import RawDenoiser, SrgbDenoiser
from cycleisp.models.edge import EdgeDenoiser, SrgbEdgeDenoiser
from cycleisp.models.initialisation import quick_start
from cycleisp.models.isp import ColorBranch, Raw2Rgb, Rgb2Raw
from cycleisp_runtime.errors import SettingsError

__all__ = ["NETWORKS", "create_model"]

NETWORKS = ("rgb2raw", "color_branch", "raw2rgb", "raw_denoiser", "srgb_denoiser")
"""The five networks of CycleISP. All have the sizes ``full``, as published, and ``small``, the same
design at a thirtieth of the cost or less. A colour branch fits the RAW2RGB of its own size."""

_MODELS: dict[tuple[str, str], Callable[[], nn.Module]] = {
    ("rgb2raw", "full"): Rgb2Raw,
    ("rgb2raw", "small"): lambda: quick_start(Rgb2Raw(24, 8, groups=1, blocks=2), "tail.0"),
    ("color_branch", "full"): ColorBranch,
    ("color_branch", "small"): lambda: quick_start(ColorBranch(24, 8, groups=1, blocks=1), None),
    ("raw2rgb", "full"): Raw2Rgb,
    ("raw2rgb", "small"): lambda: quick_start(Raw2Rgb(24, 8, groups=1, blocks=2), "tail_rgb.0"),
    ("raw_denoiser", "full"): RawDenoiser,
    ("raw_denoiser", "small"): lambda: quick_start(
        RawDenoiser(24, 8, groups=1, blocks=2), "tail.0"
    ),
    ("raw_denoiser", "edge"): lambda: EdgeDenoiser(channels=48, groups=2, blocks=3),
    ("raw_denoiser", "tiny"): lambda: EdgeDenoiser(channels=32, groups=2, blocks=2),
    ("srgb_denoiser", "full"): SrgbDenoiser,
    ("srgb_denoiser", "small"): lambda: quick_start(
        SrgbDenoiser(24, 8, groups=1, blocks=2), "tail.0"
    ),
    ("srgb_denoiser", "edge"): lambda: SrgbEdgeDenoiser(channels=48, groups=2, blocks=3),
    ("srgb_denoiser", "tiny"): lambda: SrgbEdgeDenoiser(channels=32, groups=2, blocks=2),
}


def create_model(name: str, size: str = "full") -> nn.Module:
    """A freshly initialised network: ``full`` by PyTorch's defaults, as published.

    Raises:
        SettingsError: where there is none of this name and size; the known ones are listed.
    """
    try:
        build = _MODELS[name, size]
    except KeyError:
        known = ", ".join(f"{known_name} {known_size}" for known_name, known_size in _MODELS)
        raise SettingsError(
            "no such model", met=f"{name} {size}", wanted=f"one of: {known}"
        ) from None
    return build()
