"""Stage: an sRGB denoiser, from pairs that the trained camera pipeline makes on the fly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from cycleisp.data.photographs import load_photographs, random_patch
from cycleisp.evaluation.metrics import psnr
from cycleisp.models.storage import load_network
from cycleisp.noise import noise_law
from cycleisp.synthesis.cycle import TARGETS, RawSynthesis, SrgbPairs, SrgbSynthesis, Target
from cycleisp.synthesis.raw_noise import RawNoise
from cycleisp.synthesis.shard_reader import ShardedPairs
from cycleisp.training.run_settings import RunSettings
from cycleisp.training.settings import check_ranges
from cycleisp.training.stage import Stage, initial_networks

__all__ = ["SrgbDenoiserSettings", "SrgbDenoiserStage"]

_SEEDS = 2**62
_VALIDATION_SIDE = 160


@dataclass(frozen=True, kw_only=True)
class SrgbDenoiserSettings(RunSettings):
    """Settings of the stage ``srgb-denoiser``.

    Attributes:
        photographs: folder of clean pictures.
        pattern: which pictures of the folder are used.
        shards: folder of pairs of sRGB that ``cycleisp synthesize srgb`` wrote, to learn from
            instead of making pairs at every step; validation still makes its own.
        rgb2raw: file of the trained network; likewise the next two.
        color_branch: as ``rgb2raw``.
        raw2rgb: as ``rgb2raw``.
        noise: name of the law of noise levels.
        target: what a noisy patch is paired with: ``blurred`` (the paper's), ``round-trip`` or
            ``residual``. The last does no harm while the pipeline is only roughly trained.
        patch: side of a patch in pixels; even.
        held_out: every n-th picture is kept for validation.
    """

    photographs: Path
    rgb2raw: Path
    color_branch: Path
    raw2rgb: Path
    pattern: str = "*"
    shards: Path | None = None
    noise: str = "cycleisp-dnd"
    target: str = "residual"
    patch: int = 64
    held_out: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(
            self,
            {
                "target": (self.target in TARGETS, " or ".join(TARGETS)),
                "patch": (self.patch >= 32 and self.patch % 2 == 0, "even and at least 32"),
                "held_out": (self.held_out >= 2, "at least 2"),
            },
        )


class SrgbDenoiserStage(Stage):
    """An sRGB denoiser; the three networks that make its pairs do not learn."""

    name = "srgb-denoiser"

    def __init__(self, settings: SrgbDenoiserSettings) -> None:
        super().__init__(initial_networks(("srgb_denoiser",), settings))
        self._settings = settings
        self._photographs = load_photographs(
            settings.photographs,
            pattern=settings.pattern,
            minimum_side=settings.patch,
            held_out=settings.held_out,
        )
        self._pictures = list(self._photographs.training.values())
        self._shards = None if settings.shards is None else ShardedPairs(settings.shards)
        self._noise = RawNoise(noise_law(settings.noise))
        self.rgb2raw = load_network(settings.rgb2raw, "rgb2raw")
        self.color_branch = load_network(settings.color_branch, "color_branch")
        self.raw2rgb = load_network(settings.raw2rgb, "raw2rgb")

    def draw(self, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
        """``rgb`` (3, H, W) and the seed of its noise; of shards ``clean`` and ``noisy``."""
        if self._shards is not None:
            clean, noisy = self._shards.draw(rng, self._settings.patch).floats()
            return {"clean": clean, "noisy": noisy}
        picture = self._pictures[int(rng.integers(len(self._pictures)))]
        codes = random_patch(picture, self._settings.patch, rng)
        return {"rgb": _normalised(codes), "noise_seed": np.asarray(rng.integers(_SEEDS))}

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The paper's loss, mean absolute error."""
        if self._shards is None:
            pairs = self._pairs(batch["rgb"], [int(seed) for seed in batch["noise_seed"]])
            clean, noisy = pairs.clean, pairs.noisy
        else:
            clean, noisy = batch["clean"], batch["noisy"]
        output = self.networks["srgb_denoiser"](noisy).float()
        return l1_loss(output, clean)

    @torch.inference_mode()
    def validate(self, networks: nn.ModuleDict) -> dict[str, float]:
        """PSNR of pairs made of held-out photographs, before and after."""
        before, after = [], []
        for index, picture in enumerate(self._photographs.held_out.values()):
            pairs = self._pairs(_middle(picture).to(self.device), [index])
            denoised = networks["srgb_denoiser"](pairs.noisy).clamp(0, 1)
            clean = pairs.clean.numpy(force=True)
            before.append(psnr(pairs.noisy.numpy(force=True), clean))
            after.append(psnr(denoised.numpy(force=True), clean))
        return {"noisy": float(np.mean(before)), "denoised": float(np.mean(after))}

    def manifest(self) -> dict[str, object]:
        """The photographs."""
        return self._photographs.manifest()

    @torch.no_grad()
    def _pairs(self, rgb: Tensor, seeds: list[int]) -> SrgbPairs:
        synthesis = SrgbSynthesis(
            RawSynthesis(self.rgb2raw),
            self.color_branch,
            self.raw2rgb,
            cast(Target, self._settings.target),
        )
        rngs = [np.random.default_rng(seed) for seed in seeds]
        # Eight bits of bfloat16 would add noise of their own.
        with torch.autocast(rgb.device.type, enabled=False):
            return synthesis.pairs(rgb, self._noise, rngs)


def _normalised(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return codes.transpose(2, 0, 1).astype(np.float32) / np.float32(255)


def _middle(picture: npt.NDArray[np.uint8]) -> Tensor:
    """(1, 3, H, W): the middle of a picture, small enough for a validation."""
    side = min(_VALIDATION_SIDE, *picture.shape[:2])
    top, left = ((extent - side) // 2 for extent in picture.shape[:2])
    return torch.from_numpy(_normalised(picture[top : top + side, left : left + side]))[None]
