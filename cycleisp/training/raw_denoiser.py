"""Stage: a RAW denoiser.

Clean RAW comes from photographs, by random inverse camera pipelines or by a trained RGB2RAW; noise
of a law is put on it; the network learns to take it off.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from cycleisp.data.noisy_raw import SimulatedNoise
from cycleisp.data.photographs import load_photographs, random_patch
from cycleisp.evaluation.validation import validate, validation_planes
from cycleisp.losses import harm_penalty, noise_normalised_loss
from cycleisp.models.denoisers import denoise_raw
from cycleisp.models.storage import load_network
from cycleisp.noise import NoiseLaw, noise_law
from cycleisp.sensor_profile import SensorProfile, read_sensor_profile
from cycleisp.synthesis.cycle import RawSynthesis
from cycleisp.synthesis.raw_noise import RawNoise
from cycleisp.synthesis.shard_reader import ShardedPairs
from cycleisp.training.run_settings import RunSettings
from cycleisp.training.settings import check_ranges
from cycleisp.training.stage import Stage, initial_networks

__all__ = ["RawDenoiserSettings", "RawDenoiserStage"]

_SEEDS = 2**62


@dataclass(frozen=True, kw_only=True)
class RawDenoiserSettings(RunSettings):
    """Settings of the stage ``raw-denoiser``.

    Attributes:
        photographs: folder of clean pictures.
        pattern: which pictures of the folder are used.
        rgb2raw: file of a trained network that makes RAW of the photographs, as in the paper; None
            for random inverse camera pipelines, which need no network and lose nothing.
        shards: folder of pairs of RAW that ``cycleisp synthesize raw`` wrote, to learn from instead
            of photographs; those held out are still what the network is judged by.
        noise: name of the law of noise levels, or file of a sensor's profile (NAME.json), for a
            denoiser of that camera.
        shot_low: smallest shot that a law draws, normalised.
        shot_high: largest shot that a law draws, normalised.
        loss: ``noise-normalised``, for a network that serves every noise level, or ``l1``, the
            paper's.
        harm: weight of the penalty on patches that come out worse than they went in.
        patch: side of a patch in packed samples; even.
        held_out: every n-th picture is kept for validation.
    """

    photographs: Path
    pattern: str = "*"
    rgb2raw: Path | None = None
    shards: Path | None = None
    noise: str = "unprocessing"
    shot_low: float = 2e-5
    shot_high: float = 2e-2
    loss: str = "noise-normalised"
    harm: float = 3.0
    patch: int = 64
    held_out: int = 10
    size: str = "edge"
    steps: int = 60_000
    beta2: float = 0.99
    gradient_norm: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        known = {"noise-normalised", "l1"}
        check_ranges(
            self,
            {
                "shot_low": (0 < self.shot_low <= self.shot_high, "above 0, at most shot_high"),
                "shot_high": (self.shot_high < 1, "below 1"),
                "loss": (self.loss in known, " or ".join(sorted(known))),
                "harm": (self.harm >= 0, "at least 0"),
                "patch": (self.patch >= 16 and self.patch % 2 == 0, "even and at least 16"),
                "held_out": (self.held_out >= 2, "at least 2"),
                "shards": (
                    self.shards is None or self.rgb2raw is None,
                    "none where rgb2raw makes the pairs",
                ),
            },
        )


class RawDenoiserStage(Stage):
    """A RAW denoiser of any size."""

    name = "raw-denoiser"

    def __init__(self, settings: RawDenoiserSettings) -> None:
        super().__init__(initial_networks(("raw_denoiser",), settings))
        self._settings = settings
        self._photographs = load_photographs(
            settings.photographs,
            pattern=settings.pattern,
            minimum_side=2 * settings.patch,
            held_out=settings.held_out,
        )
        self._pictures = list(self._photographs.training.values())
        self._held_out = [
            validation_planes(picture) for picture in self._photographs.held_out.values()
        ]
        law = _noise(settings)
        self._simulated = SimulatedNoise(self._pictures, law, settings.patch)
        self._noise = RawNoise(law)
        self.rgb2raw = (
            None if settings.rgb2raw is None else load_network(settings.rgb2raw, "rgb2raw")
        )
        self._shards = None if settings.shards is None else ShardedPairs(settings.shards)

    def draw(self, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
        """``clean``, ``noisy`` and ``variance`` (4, h, w); for RGB2RAW ``rgb`` and a noise seed."""
        if self._shards is not None:
            stored = self._shards.draw(rng, self._settings.patch)
            clean, noisy = stored.floats()
            return {"clean": clean, "noisy": noisy, "variance": stored.level.variance(noisy)}
        if self.rgb2raw is None:
            pair = self._simulated.draw(rng)
            return {"clean": pair.clean, "noisy": pair.noisy, "variance": pair.variance}
        picture = self._pictures[int(rng.integers(len(self._pictures)))]
        codes = random_patch(picture, 2 * self._settings.patch, rng)
        rgb = codes.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        return {"rgb": rgb, "noise_seed": np.asarray(rng.integers(_SEEDS))}

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The loss of the denoised patches."""
        if self.rgb2raw is not None:
            batch = self._synthesised(self.rgb2raw, batch)
        clean, noisy, variance = batch["clean"], batch["noisy"], batch["variance"]
        scale = variance.mean(dim=(1, 2, 3), keepdim=True).sqrt()
        output = denoise_raw(self.networks["raw_denoiser"], noisy, variance, scale)
        if self._settings.loss == "l1":
            return l1_loss(output, clean)
        return noise_normalised_loss(output, clean, scale) + self._settings.harm * harm_penalty(
            output, noisy, clean, scale
        )

    def validate(self, networks: nn.ModuleDict) -> dict[str, float]:
        """PSNR of simulated RAW at low, middle and high noise, before and after."""
        return validate(networks["raw_denoiser"], self._held_out)

    def manifest(self) -> dict[str, object]:
        """The photographs."""
        return self._photographs.manifest()

    @torch.no_grad()
    def _synthesised(self, rgb2raw: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        rngs = [np.random.default_rng(int(seed)) for seed in batch["noise_seed"]]
        # Eight bits of bfloat16 would add noise of their own.
        with torch.autocast(batch["rgb"].device.type, enabled=False):
            pairs = RawSynthesis(rgb2raw).pairs(batch["rgb"], self._noise, rngs)
        return {"clean": pairs.clean, "noisy": pairs.noisy, "variance": pairs.variance}


def _noise(settings: RawDenoiserSettings) -> NoiseLaw | SensorProfile:
    if settings.noise.endswith(".json"):
        return read_sensor_profile(Path(settings.noise))
    law = noise_law(settings.noise)
    return dataclasses.replace(law, low=settings.shot_low, high=settings.shot_high)
