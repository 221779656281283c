"""Stages of the camera pipeline: sRGB to RAW, RAW to sRGB, and both together.

S. W. Zamir et al., "CycleISP: Real Image Restoration via Improved Data Synthesis", CVPR 2020,
section 3: the two directions are trained apart, RAW to sRGB from the true RAW, then tuned together
without noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cycleisp.evaluation.camera_pipeline import raw_quality, srgb_quality
from cycleisp.losses import joint_loss, raw2rgb_loss, rgb2raw_loss
from cycleisp.models.storage import load_network
from cycleisp.training.pair_settings import PairData, PairSettings
from cycleisp.training.run_settings import RunSettings
from cycleisp.training.settings import check_ranges
from cycleisp.training.stage import Stage, initial_networks

__all__ = [
    "JointSettings",
    "JointStage",
    "PipelineSettings",
    "Raw2RgbSettings",
    "Raw2RgbStage",
    "Rgb2RawSettings",
    "Rgb2RawStage",
    "pipeline_networks",
    "rendered",
]


@dataclass(frozen=True, kw_only=True)
class Rgb2RawSettings(PairSettings):
    """Settings of the stage ``rgb2raw``.

    Attributes:
        eps: where the loss cuts the logarithm; the paper does not say.
        log_weight: of the loss's log term; 1 is our reading of the paper.
    """

    eps: float = 1e-3
    log_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(
            self,
            {
                "eps": (0 < self.eps < 1, "above 0 and below 1"),
                "log_weight": (self.log_weight >= 0, "at least 0"),
            },
        )


class PairStage(Stage):
    """A stage whose samples are pairs of RAW and sRGB."""

    def __init__(self, networks: Mapping[str, nn.Module], data: PairData) -> None:
        super().__init__(networks)
        self._data = data

    def draw(self, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
        """``raw`` (4, h, w) and ``rgb`` (3, 2h, 2w)."""
        pair = self._data.source.draw(rng)
        return {"raw": pair.raw, "rgb": pair.rgb}

    def manifest(self) -> dict[str, object]:
        """The pictures and frames behind the pairs."""
        return self._data.manifest


class Rgb2RawStage(PairStage):
    """RGB2RAW alone."""

    name = "rgb2raw"

    def __init__(self, settings: Rgb2RawSettings, data: PairData) -> None:
        super().__init__(initial_networks(("rgb2raw",), settings), data)
        self._settings = settings

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The paper's loss of RAW from sRGB."""
        predicted = self.networks["rgb2raw"](batch["rgb"]).float()
        return rgb2raw_loss(
            predicted,
            batch["raw"],
            eps=self._settings.eps,
            log_weight=self._settings.log_weight,
        )

    @torch.inference_mode()
    def validate(self, networks: nn.ModuleDict) -> dict[str, float]:
        """PSNR of RAW."""
        return raw_quality(networks["rgb2raw"], self._data.source.held_out(), self.device)


@dataclass(frozen=True, kw_only=True)
class Raw2RgbSettings(PairSettings):
    """Settings of the stage ``raw2rgb``.

    Attributes:
        color_branch: whether the colour branch steers RAW2RGB; without it the map is 0, which is an
            ablation and makes no networks that synthesis could use.
    """

    color_branch: bool = True


class Raw2RgbStage(PairStage):
    """RAW2RGB and the colour branch, from the true RAW."""

    name = "raw2rgb"

    def __init__(self, settings: Raw2RgbSettings, data: PairData) -> None:
        names = ("color_branch", "raw2rgb") if settings.color_branch else ("raw2rgb",)
        super().__init__(initial_networks(names, settings), data)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The paper's loss of sRGB from RAW."""
        return raw2rgb_loss(rendered(self.networks, batch["raw"], batch["rgb"]), batch["rgb"])

    @torch.inference_mode()
    def validate(self, networks: nn.ModuleDict) -> dict[str, float]:
        """PSNR of sRGB."""
        return srgb_quality(
            lambda raw, rgb: rendered(networks, raw, rgb),
            self._data.source.held_out(),
            self.device,
        )


@dataclass(frozen=True, kw_only=True)
class PipelineSettings(RunSettings):
    """Settings of a stage that starts from the three trained networks.

    Attributes:
        rgb2raw: file of the network to start from; likewise the next two.
        color_branch: as ``rgb2raw``.
        raw2rgb: as ``rgb2raw``.
    """

    rgb2raw: Path
    color_branch: Path
    raw2rgb: Path


@dataclass(frozen=True, kw_only=True)
class JointSettings(Rgb2RawSettings, PipelineSettings):
    """Settings of the stage ``joint``.

    Attributes:
        learning_rate: of Adam.
        beta: share of the loss of RAW; 0.5 is our reading of the paper.
    """

    learning_rate: float = 3e-4
    beta: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, {"beta": (0 <= self.beta <= 1, "0 to 1")})


class JointStage(PairStage):
    """All three networks, RAW2RGB fed by RGB2RAW."""

    name = "joint"

    def __init__(self, settings: JointSettings, data: PairData) -> None:
        super().__init__(pipeline_networks(settings), data)
        self._settings = settings

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The paper's loss of the cycle; gradients of sRGB reach RGB2RAW."""
        settings, rgb = self._settings, batch["rgb"]
        raw = self.networks["rgb2raw"](rgb).float()
        return joint_loss(
            rgb2raw=rgb2raw_loss(
                raw, batch["raw"], eps=settings.eps, log_weight=settings.log_weight
            ),
            raw2rgb=raw2rgb_loss(rendered(self.networks, raw, rgb), rgb),
            beta=settings.beta,
        )

    @torch.inference_mode()
    def validate(self, networks: nn.ModuleDict) -> dict[str, float]:
        """PSNR of RAW, of sRGB from the true RAW, and of the round trip sRGB to RAW to sRGB."""
        pairs = self._data.source.held_out()
        round_trip = srgb_quality(
            lambda _raw, rgb: rendered(networks, networks["rgb2raw"](rgb).clamp(0, 1), rgb),
            pairs,
            self.device,
        )
        return {
            **raw_quality(networks["rgb2raw"], pairs, self.device),
            **srgb_quality(lambda raw, rgb: rendered(networks, raw, rgb), pairs, self.device),
            "round trip": round_trip["sRGB"],
        }


def pipeline_networks(settings: PipelineSettings) -> dict[str, nn.Module]:
    """The three networks of the files, ready to learn on.

    Raises:
        InputError: where a file holds another network or size.
    """
    files = {
        "rgb2raw": settings.rgb2raw,
        "color_branch": settings.color_branch,
        "raw2rgb": settings.raw2rgb,
    }
    networks = initial_networks(tuple(files), settings)
    for name, network in networks.items():
        network.load_state_dict(load_network(files[name], name, settings.size).state_dict())
    return networks


def rendered(networks: nn.ModuleDict, raw: Tensor, rgb: Tensor) -> Tensor:
    """(N, 3, 2h, 2w) sRGB, not clipped, of RAW (N, 4, h, w).

    Args:
        networks: ``raw2rgb``, and ``color_branch`` where the colours of ``rgb`` are to steer it.
        raw: packed, normalised.
        rgb: (N, 3, 2h, 2w) sRGB of the clean scene.
    """
    raw2rgb = networks["raw2rgb"]
    if "color_branch" in networks:
        colors = networks["color_branch"](rgb)
    else:
        channels = raw2rgb.get_submodule("tail_rgb.0").get_parameter("weight").shape[1]
        colors = raw.new_zeros(len(raw), channels, *raw.shape[2:])
    picture: Tensor = raw2rgb(raw, colors)
    return picture.float()
