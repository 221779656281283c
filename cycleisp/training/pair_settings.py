"""Where the stages of the camera pipeline take their pairs of RAW and sRGB from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cycleisp.data.camera_pairs import MixedPairs, PairSource, SimulatedPairs, camera_law
from cycleisp.data.photographs import Photographs, load_photographs
from cycleisp.data.prepared_pairs import PreparedPairs
from cycleisp.training.run_settings import RunSettings
from cycleisp.training.settings import check_ranges
from cycleisp_runtime.errors import SettingsError

__all__ = ["PairData", "PairSettings", "load_pairs"]


@dataclass(frozen=True, kw_only=True)
class PairSettings(RunSettings):
    """Settings of a stage that learns from pairs of RAW and sRGB.

    At least one of ``photographs`` and ``pairs`` is needed.

    Attributes:
        photographs: folder of clean pictures, of which pairs are simulated.
        pattern: which pictures of the folder are used.
        cameras: which cameras are simulated: ``many``, ``one`` or ``new``.
        pairs: folder that ``cycleisp data prepare`` wrote, of real cameras.
        real_share: how often a patch is a real one, where there are both.
        patch: side of a patch in packed samples; even. The paper's loader counts so, too; whether
            its 128 are packed samples or pixels is not known. Ours is small for two CPU cores.
        held_out: every n-th picture is kept for validation.
        held_out_frames: of ``pairs``, how many are kept for validation.
    """

    photographs: Path | None = None
    pattern: str = "*"
    cameras: str = "many"
    pairs: Path | None = None
    real_share: float = 0.5
    patch: int = 32
    held_out: int = 10
    held_out_frames: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(
            self,
            {
                "real_share": (0 <= self.real_share <= 1, "0 to 1"),
                "patch": (self.patch >= 16 and self.patch % 2 == 0, "even and at least 16"),
                "held_out": (self.held_out >= 2, "at least 2"),
                "held_out_frames": (self.held_out_frames >= 1, "at least 1"),
            },
        )


@dataclass(frozen=True)
class PairData:
    """Pairs, and the record of what they are made from."""

    source: PairSource
    manifest: dict[str, object]


def load_pairs(settings: PairSettings) -> PairData:
    """The pairs that these settings ask for.

    Raises:
        SettingsError: where they ask for none, or too few pictures are usable.
        InputError: where a folder cannot be read.
    """
    sources: list[PairSource] = []
    manifest: dict[str, object] = {}
    if settings.photographs is not None:
        photographs = load_photographs(
            settings.photographs,
            pattern=settings.pattern,
            minimum_side=2 * settings.patch,
            held_out=settings.held_out,
        )
        sources.append(_simulated(photographs, settings))
        manifest["photographs"] = photographs.manifest()
    if settings.pairs is not None:
        prepared = PreparedPairs(settings.pairs, settings.patch, settings.held_out_frames)
        sources.append(prepared)
        manifest["pairs"] = prepared.manifest()
    if not sources:
        raise SettingsError(
            "nothing to learn from",
            subject="photographs, pairs",
            hint="give photographs=FOLDER, or pairs=FOLDER from `cycleisp data prepare`",
        )
    if len(sources) == 1:
        return PairData(sources[0], manifest)
    simulated, real = sources
    return PairData(MixedPairs(real, simulated, settings.real_share), manifest)


def _simulated(photographs: Photographs, settings: PairSettings) -> SimulatedPairs:
    return SimulatedPairs(
        photographs.training, photographs.held_out, camera_law(settings.cameras), settings.patch
    )
