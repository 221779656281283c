"""The networks, by name and size."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from cycleisp.models.denoisers import RawDenoiser, SrgbDenoiser
from cycleisp.models.edge import EdgeDenoiser
from cycleisp_runtime.errors import SettingsError

__all__ = ["create_model"]

_MODELS: dict[tuple[str, str], Callable[[], nn.Module]] = {
    ("raw_denoiser", "full"): RawDenoiser,
    ("raw_denoiser", "edge"): lambda: EdgeDenoiser(channels=48, groups=2, blocks=3),
    ("raw_denoiser", "tiny"): lambda: EdgeDenoiser(channels=32, groups=2, blocks=2),
    ("srgb_denoiser", "full"): SrgbDenoiser,
}


def create_model(name: str, size: str) -> nn.Module:
    """A freshly initialised network.

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
