"""Frames of SIDD as prepared pairs: each frame twice, noisy and clean, and patches of both.

SIDD's frames are compressed in their files, and one takes seconds to read; prepared, a patch of it
takes a millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cycleisp.data.augmentation import MosaicPair, random_rggb_patch
from cycleisp.data.camera_pairs import HELD_OUT_SIDE, CameraPair
from cycleisp.data.pairs_folder import (
    PairRecord,
    open_manifest,
    open_pair,
    read_manifest,
    save_pair,
)
from cycleisp.data.prepare import file_sha256
from cycleisp.data.prepared_pairs import camera_pair, middle
from cycleisp.data.sidd import SiddFiles, read_sidd_pair
from cycleisp.data.sidd_metadata import PHONE_PHASES
from cycleisp_runtime.errors import InputError, SettingsError

__all__ = ["NoisyCameraPair", "SiddPairs", "add_sidd_frame"]

_CLEAN, _NOISY = ".clean", ".noisy"


@dataclass(frozen=True)
class NoisyCameraPair:
    """One patch of one scene, without noise and with a real camera's."""

    clean: CameraPair
    noisy: CameraPair


def add_sidd_frame(folder: Path, files: SiddFiles) -> bool:
    """Whether the frame was added to the folder of pairs; False where it stands there already.

    Samples outside of [0, 1] are clipped, as the networks expect them.

    Raises:
        InputError: where the frame cannot be read.
        OutputError: where the folder cannot be written.
    """
    manifest = open_manifest(folder, "levels")
    hashes = {_CLEAN: file_sha256(files.clean_raw), _NOISY: file_sha256(files.noisy_raw)}
    if set(hashes.values()) <= {pair.source_sha256 for pair in manifest.pairs}:
        return False
    frame = read_sidd_pair(files)
    stem = files.name.replace("/", "_")
    for suffix, pair, source in (
        (_CLEAN, frame.clean, files.clean_raw),
        (_NOISY, frame.noisy, files.noisy_raw),
    ):
        rggb = MosaicPair(_codes(pair.mosaic), pair.rgb, pair.phase).unified()
        height, width = rggb.mosaic.shape
        record = PairRecord(
            stem=stem + suffix,
            source=source.name,
            source_sha256=hashes[suffix],
            camera=files.phone,
            cfa=PHONE_PHASES[files.phone].value,
            black=(0.0, 0.0, 0.0, 0.0),
            white=1.0,
            height=height,
            width=width,
        )
        manifest = save_pair(folder, manifest, record, rggb)
    return True


def _codes(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    codes: npt.NDArray[np.uint16] = np.rint(np.clip(samples, 0, 1) * 65535).astype(np.uint16)
    return codes


class SiddPairs:
    """Patches of SIDD's frames.

    Args:
        folder: that ``cycleisp data sidd`` wrote.
        patch: side of a patch in packed samples.
        held_out: frames, the last by name, that are never trained on.

    Raises:
        InputError: where the folder is missing or damaged, a frame is not there twice or too small.
        SettingsError: where no frame is left to train on.
    """

    def __init__(self, folder: Path, patch: int, held_out: int) -> None:
        self._folder = folder
        self._side = 2 * patch
        records = {pair.stem: pair for pair in read_manifest(folder).pairs}
        stems = sorted(stem.removesuffix(_CLEAN) for stem in records if stem.endswith(_CLEAN))
        if not stems or any(stem + _NOISY not in records for stem in stems):
            raise InputError(
                "not frames of SIDD, noisy and clean", subject=folder, hint="`cycleisp data sidd`"
            )
        if len(stems) <= held_out:
            raise SettingsError(
                "no frame is left to train on",
                subject=folder,
                met=f"{len(stems)} frames, {held_out} held out",
                hint="hold out fewer, or prepare more",
            )
        frames = [(records[stem + _CLEAN], records[stem + _NOISY]) for stem in stems]
        for clean, noisy in frames:
            size = (clean.height, clean.width)
            if (noisy.height, noisy.width) != size or min(size) < self._side:
                raise InputError(
                    "noisy and clean differ in size, or are smaller than a patch",
                    subject=clean.stem,
                    met=f"{size} and {(noisy.height, noisy.width)}",
                    wanted=f"at least {self._side}",
                )
        self._training = frames[: len(frames) - held_out]
        self._held_out = frames[len(frames) - held_out :]

    def draw(self, rng: np.random.Generator) -> NoisyCameraPair:
        """A random patch of a random frame, both turned alike."""
        records = self._training[int(rng.integers(len(self._training)))]
        place = int(rng.integers(2**62))
        clean, noisy = (
            random_rggb_patch(
                open_pair(self._folder, record), self._side, np.random.default_rng(place)
            )
            for record in records
        )
        return NoisyCameraPair(camera_pair(clean), camera_pair(noisy))

    def held_out(self) -> dict[str, NoisyCameraPair]:
        """The middle of every frame that is held out, by its name."""
        return {
            records[0].stem.removesuffix(_CLEAN): NoisyCameraPair(
                *(middle(self._folder, record, HELD_OUT_SIDE) for record in records)
            )
            for records in self._held_out
        }

    def manifest(self) -> dict[str, object]:
        """SHA-256 of every noisy RAW that is trained on, and the names of the frames held out."""
        return {
            "trained_on": {clean.stem: noisy.source_sha256 for clean, noisy in self._training},
            "held_out": [clean.stem for clean, _ in self._held_out],
        }
