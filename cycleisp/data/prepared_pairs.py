"""Training pairs from a folder that ``cycleisp data prepare`` wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cycleisp.data.augmentation import MosaicPair, random_rggb_patch
from cycleisp.data.camera_pairs import HELD_OUT_SIDE, CameraPair
from cycleisp.data.pairs_folder import PairRecord, open_pair, read_manifest
from cycleisp_runtime.bayer import pack
from cycleisp_runtime.errors import InputError, SettingsError

__all__ = ["PreparedPairs", "camera_pair", "middle"]


class PreparedPairs:
    """Real frames and their renderings; a source of pairs.

    Arrays are mapped for one patch at a time, so neither the number of frames nor their size takes
    memory or open files, and workers can be forked.

    Args:
        folder: of the pairs.
        patch: side of a training patch in packed samples.
        held_out: frames that are never trained on: those whose source's hash comes first, a choice
            that has nothing to do with names and stays as frames are added.

    Raises:
        InputError: where the folder or an array is missing, damaged or not what ``pairs.json``
            says, or a frame is smaller than a patch.
        SettingsError: where no frame is left to train on.
    """

    def __init__(self, folder: Path, patch: int, held_out: int) -> None:
        listed = read_manifest(folder)
        records = sorted(listed.pairs, key=lambda pair: pair.source_sha256)
        if not records:
            raise InputError(
                "no pairs in this folder", subject=folder, hint="`cycleisp data prepare` makes them"
            )
        if held_out >= len(records):
            raise SettingsError(
                "no frame is left to train on",
                subject=folder,
                met=f"{len(records)} pairs, {held_out} held out",
                hint="hold out fewer, or prepare more",
            )
        for record in records:
            open_pair(folder, record)
            if min(record.height, record.width) < 2 * patch:
                raise InputError(
                    f"the frame {record.stem} is smaller than a patch",
                    subject=folder,
                    met=f"{record.width}x{record.height} samples",
                    wanted=f"{2 * patch}x{2 * patch}",
                    hint="choose a smaller patch",
                )
        self._folder = folder
        self._side = 2 * patch
        self._normalisation = listed.normalisation
        self._held_out, self._training = records[:held_out], records[held_out:]

    def draw(self, rng: np.random.Generator) -> CameraPair:
        """A random patch under one of four augmentations; every frame is equally likely.

        A frame is one scene by one camera: drawn by area, a few large ones would stand for all.
        """
        record = self._training[int(rng.integers(len(self._training)))]
        pair = open_pair(self._folder, record)
        return camera_pair(random_rggb_patch(pair, self._side, rng))

    def held_out(self) -> dict[str, CameraPair]:
        """The middle of every frame that is held out, by its stem."""
        return {
            record.stem: middle(self._folder, record, HELD_OUT_SIDE) for record in self._held_out
        }

    def manifest(self) -> dict[str, object]:
        """How the samples are normalised, the hash of every RAW file, and which are held out."""
        return {
            "normalisation": self._normalisation,
            "trained_on": {record.stem: record.source_sha256 for record in self._training},
            "held_out": {record.stem: record.source_sha256 for record in self._held_out},
        }


def middle(folder: Path, record: PairRecord, side: int) -> CameraPair:
    """The middle of a frame: ``side`` samples, an even number, or as many as there are.

    Raises:
        InputError: where an array is missing or damaged.
    """
    height, width = (min(side, extent // 2 * 2) for extent in (record.height, record.width))
    top, left = (record.height - height) // 4 * 2, (record.width - width) // 4 * 2
    return camera_pair(open_pair(folder, record).window(top, left, height, width))


def camera_pair(pair: MosaicPair) -> CameraPair:
    """An RGGB pair, (H, W) uint16 and (H, W, 3) uint8, packed and in [0, 1]; H and W even."""
    raw = pack(pair.mosaic, pair.phase).astype(np.float32) / np.float32(65535)
    rgb = np.ascontiguousarray(pair.rgb.transpose(2, 0, 1), np.float32) / np.float32(255)
    return CameraPair(raw, rgb)
