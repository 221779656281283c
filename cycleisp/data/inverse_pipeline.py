"""From a finished photograph back to the linear RAW that a random but plausible camera took.

T. Brooks et al., "Unprocessing Images for Learned Raw Denoising", CVPR 2019, section 3: undo tone
mapping, gamma, colour correction and white balance, then take the mosaic. Numbers marked [B] are
from the authors' code (google-research/unprocessing, Apache-2.0); our ranges are wider on purpose,
because the cameras of our users are: ``ANY_CAMERA`` has white-balance gains down to 1.2 and some
frames that are exposed up to four stops lower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.color import SRGB_TO_XYZ

__all__ = [
    "ANY_CAMERA",
    "CameraLaw",
    "InversePipeline",
    "mosaic_planes",
    "random_inverse_pipeline",
]

_XYZ_TO_CAMERA = np.array(
    [
        [[1.0234, -0.2969, -0.2266], [-0.5625, 1.6328, -0.0469], [-0.0703, 0.2188, 0.6406]],
        [[0.4913, -0.0541, -0.0202], [-0.6130, 1.3513, 0.2906], [-0.1564, 0.2151, 0.7183]],
        [[0.8380, -0.2630, -0.0639], [-0.2887, 1.0725, 0.2496], [-0.0627, 0.1427, 0.5438]],
        [[0.6596, -0.2079, -0.0562], [-0.4782, 1.3016, 0.1933], [-0.0970, 0.1581, 0.5181]],
    ]
)
"""XYZ (D65) to camera R, G, B of four cameras [B]; a random convex mix stands for any camera."""

_DARKEST_STOPS = 4.0

_MOST_VIVID = 1.4
"""How far past the camera's overlapping filters (0) and sRGB's own primaries (1) colours go."""


@dataclass(frozen=True)
class CameraLaw:
    """How likely each camera, white balance, exposure and tone curve is.

    Attributes:
        red_gain: white-balance gains of red over green, uniform between the two; [B]: 1.9 to 2.4.
        blue_gain: the same of blue; [B]: 1.5 to 1.9.
        brightness_spread: deviation of the picture's exposure about 0.8; [B]: 0.1.
        tones: shares of the smoothstep tone curve, one of which is undone; [B]: 1 alone.
        dark_share: how many frames are exposed up to four stops lower.
        vivid_share: how many cameras have less overlap of their filters than the matrices.
        matrices: which of four measured camera matrices are mixed.
    """

    red_gain: tuple[float, float]
    blue_gain: tuple[float, float]
    brightness_spread: float
    tones: tuple[float, ...]
    dark_share: float = 0.0
    vivid_share: float = 0.0
    matrices: tuple[int, ...] = (0, 1, 2, 3)


ANY_CAMERA = CameraLaw(
    red_gain=(1.2, 2.8),
    blue_gain=(1.2, 2.6),
    brightness_spread=0.1,
    tones=(0.0, 1.0),
    dark_share=0.4,
    vivid_share=0.5,
)
"""What a denoiser for any user's camera must cope with. Brooks et al. undo a smoothstep tone curve
in every picture; half of ours have none, since many cameras' JPEGs are rendered flatter."""


@dataclass(frozen=True)
class InversePipeline:
    """One camera and its settings, inverted.

    Attributes:
        table: (256,) float32, an sRGB code to linear light in [0, 1], tone curve undone.
        matrix: (3, 3) float32, linear sRGB to camera R, G, B; rows sum to 1.
        gains: (3,) float32, the factor on each camera channel that undoes white balance and
            brightening.
    """

    table: npt.NDArray[np.float32]
    matrix: npt.NDArray[np.float32]
    gains: npt.NDArray[np.float32]

    def camera_rgb(
        self, photograph: npt.NDArray[np.uint8], reduction: int = 1
    ) -> npt.NDArray[np.float32]:
        """Linear camera R, G, B (H / reduction, W / reduction, 3), float32 in [0, 1].

        Args:
            photograph: (H, W, 3) sRGB codes R, G, B; H and W multiples of ``reduction``.
            reduction: side of the squares that are averaged in linear light. It removes what a
                JPEG encoder left, and with it most of the photograph's own noise.
        """
        linear = self.table[photograph]
        if reduction > 1:
            linear = _area_mean(linear, reduction)
        darkened = self._darkened(linear @ self.matrix.T)
        return np.clip(darkened, np.float32(0), np.float32(1))

    def _darkened(self, camera: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Gains undone, except in highlights, which stay white (section 3.4 of the paper)."""
        grey = camera.mean(axis=2, keepdims=True)
        highlight = np.square(np.maximum(grey - 0.9, 0.0) / 0.1)
        gains = np.maximum(highlight + (1.0 - highlight) * self.gains, self.gains)
        darkened: npt.NDArray[np.float32] = camera * gains
        return darkened


def _area_mean(linear: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    # A sum of strided views is ten times faster than numpy's mean over two inner axes.
    total = np.zeros_like(linear[::side, ::side])
    for row in range(side):
        for column in range(side):
            total += linear[row::side, column::side]
    return total / np.float32(side * side)


def random_inverse_pipeline(
    rng: np.random.Generator, law: CameraLaw = ANY_CAMERA
) -> InversePipeline:
    """A random camera, white balance, brightness and tone curve of the law."""
    measured = _XYZ_TO_CAMERA[list(law.matrices)]
    weights = rng.uniform(1e-8, 1.0, size=len(measured))
    to_camera = np.tensordot(weights / weights.sum(), measured, axes=1) @ SRGB_TO_XYZ
    matrix = to_camera / to_camera.sum(axis=1, keepdims=True)
    # Camera matrices make every channel a blend of all three. Under coloured light, or on flowers,
    # a sensor sees nearly separate channels; a network that never met them trusts the others too
    # much and made such pictures worse (by 3 dB in the blue plane of the worst one).
    if rng.random() < law.vivid_share:
        matrix += rng.uniform(0.0, _MOST_VIVID) * (np.eye(3) - matrix)

    brightness = 1.0 / rng.normal(0.8, law.brightness_spread)
    if rng.random() < law.dark_share:
        brightness *= 2.0 ** rng.uniform(0.0, _DARKEST_STOPS)
    white_balance = np.array([rng.uniform(*law.red_gain), 1.0, rng.uniform(*law.blue_gain)])

    codes = np.linspace(0.0, 1.0, 256)
    tone = law.tones[int(rng.integers(len(law.tones)))]
    smoothstep_undone = 0.5 - np.sin(np.arcsin(1.0 - 2.0 * codes) / 3.0)
    table = np.maximum(codes + tone * (smoothstep_undone - codes), 1e-8) ** 2.2
    return InversePipeline(
        table.astype(np.float32),
        matrix.astype(np.float32),
        (1.0 / (brightness * white_balance)).astype(np.float32),
    )


def mosaic_planes(camera_rgb: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Packed planes (4, H/2, W/2) R, Gr, Gb, B: what an RGGB sensor keeps of R, G, B (H, W, 3).

    H and W must be even.
    """
    return np.stack(
        [
            camera_rgb[0::2, 0::2, 0],
            camera_rgb[0::2, 1::2, 1],
            camera_rgb[1::2, 0::2, 1],
            camera_rgb[1::2, 1::2, 2],
        ]
    )
