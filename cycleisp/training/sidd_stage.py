"""Stage: the camera pipeline tuned to render the noise of SIDD's cameras.

S. W. Zamir et al., CVPR 2020, section 5: the true noise of a RAW frame is put on what RGB2RAW makes
of the clean sRGB, and RAW2RGB has to render the camera's noisy sRGB. The authors released no code
of it, and the set itself was not at hand: this stage was run on files in its formats only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cycleisp.data.sidd_pairs import SiddPairs
from cycleisp.evaluation.metrics import psnr
from cycleisp.losses import joint_loss, raw2rgb_loss, rgb2raw_loss
from cycleisp.training.isp_stages import PipelineSettings, pipeline_networks, rendered
from cycleisp.training.settings import check_ranges
from cycleisp.training.stage import Stage

__all__ = ["SiddSettings", "SiddStage"]


@dataclass(frozen=True, kw_only=True)
class SiddSettings(PipelineSettings):
    """Settings of the stage ``finetune-sidd``.

    Attributes:
        sidd: folder that ``cycleisp data sidd`` wrote.
        patch: side of a patch in packed samples; even.
        held_out: frames that are kept for validation.
        beta: share of the loss of clean RAW, which keeps RGB2RAW a sensor's. The paper does not say
            whether it had one; 0 leaves it out.
        learning_rate: of Adam.
    """

    sidd: Path
    patch: int = 32
    held_out: int = 1
    beta: float = 0.5
    learning_rate: float = 3e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(
            self,
            {
                "patch": (self.patch >= 16 and self.patch % 2 == 0, "even and at least 16"),
                "held_out": (self.held_out >= 1, "at least 1"),
                "beta": (0 <= self.beta <= 1, "0 to 1"),
            },
        )


class SiddStage(Stage):
    """All three networks, with a real sensor's noise between them."""

    name = "finetune-sidd"

    def __init__(self, settings: SiddSettings) -> None:
        super().__init__(pipeline_networks(settings))
        self._settings = settings
        self._pairs = SiddPairs(settings.sidd, settings.patch, settings.held_out)

    def draw(self, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
        """``raw``, ``noisy_raw`` (4, h, w), ``rgb`` and ``noisy_rgb`` (3, 2h, 2w)."""
        pair = self._pairs.draw(rng)
        return {
            "raw": pair.clean.raw,
            "noisy_raw": pair.noisy.raw,
            "rgb": pair.clean.rgb,
            "noisy_rgb": pair.noisy.rgb,
        }

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The loss of clean RAW and of noisy sRGB."""
        raw = self.networks["rgb2raw"](batch["rgb"]).float()
        noisy = raw + (batch["noisy_raw"] - batch["raw"])
        return joint_loss(
            rgb2raw=rgb2raw_loss(raw, batch["raw"]),
            raw2rgb=raw2rgb_loss(rendered(self.networks, noisy, batch["rgb"]), batch["noisy_rgb"]),
            beta=self._settings.beta,
        )

    @torch.inference_mode()
    def validate(self, networks: nn.ModuleDict) -> dict[str, float]:
        """PSNR of rendered noisy sRGB against the camera's, and the noise of both in codes."""
        found, ours, theirs = [], [], []
        for pair in self._pairs.held_out().values():
            rgb, residual, true = (
                torch.from_numpy(array)[None].to(self.device)
                for array in (pair.clean.rgb, pair.noisy.raw - pair.clean.raw, pair.noisy.rgb)
            )
            raw = networks["rgb2raw"](rgb)
            noisy = rendered(networks, (raw + residual).clamp(0, 1), rgb).clamp(0, 1)
            noiseless = rendered(networks, raw.clamp(0, 1), rgb).clamp(0, 1)
            found.append(psnr(noisy.numpy(force=True), true.numpy(force=True)))
            ours.append(float((noisy - noiseless).square().mean()))
            theirs.append(float((true - rgb).square().mean()))
        return {
            "noisy sRGB": float(np.mean(found)),
            "deviation of rendered noise of 255": 255 * float(np.sqrt(np.mean(ours))),
            "deviation of the camera's noise of 255": 255 * float(np.sqrt(np.mean(theirs))),
        }

    def manifest(self) -> dict[str, object]:
        """The frames."""
        return {"sidd": self._pairs.manifest()}
