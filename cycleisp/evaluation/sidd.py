"""SIDD: scores on the validation blocks, and the file that its benchmark takes.

RAW: a block is flipped to RGGB by its phone's CFA, packed, denoised with the variance map shot * x
+ read of its image, clipped to [0, 1] and flipped back. sRGB: a block goes through the network as a
whole, in [0, 1]; the output is clipped and rounded to 8 bits.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cycleisp.data.sidd_blocks import BLOCK_PHONES, read_raw_blocks, read_srgb_blocks
from cycleisp.data.sidd_metadata import PHONE_PHASES, read_metadata
from cycleisp.evaluation.denoisers import MosaicDenoiser, SrgbDenoiser
from cycleisp.evaluation.scores import Judgement, Report, judged_mosaic, judged_srgb, mean_scores
from cycleisp.evaluation.submission import SiddBlocks, write_sidd_submission
from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.noise_estimate import estimate_noise
from cycleisp_runtime.writers.atomic import check_output

__all__ = ["submit_raw", "submit_srgb", "validate_raw", "validate_srgb"]

Begin = Callable[[str, int], None]
"""Called before each block with its name and how many there are."""


def validate_raw(
    folder: Path, denoise: MosaicDenoiser, metadata: Path | None, begin: Begin
) -> Report:
    """Mean scores by phone on ``ValidationNoisyBlocksRaw.mat`` and ``ValidationGtBlocksRaw.mat``.

    1280 blocks of 256x256. Input, output and truth clipped to [0, 1], none rounded; peak 1; PSNR
    over the block, which the packed planes give too; SSIM of the mosaic; then the mean over blocks.
    CycleISP's authors report this set, in means over batches of 16, which here are the same.

    Args:
        folder: holds the two files.
        denoise: from ``load_raw_denoiser``.
        metadata: a folder with the METADATA_RAW_010.MAT of each image, in the order of their names;
            None to estimate each image's noise from its blocks.
        begin: told about progress.

    Raises:
        InputError: where a file cannot be read, or the blocks do not look like their CFA.
    """
    noisy, clean = (
        read_raw_blocks(folder, name)
        for name in ("ValidationNoisyBlocksRaw", "ValidationGtBlocksRaw")
    )
    facts = _facts_of_images(folder, noisy, metadata)

    def judge(image: int, block: int) -> Judgement:
        return judged_mosaic(denoise, noisy[image, block], clean[image, block], *facts(image))

    return _validate(folder, noisy, clean, judge, begin)


def validate_srgb(folder: Path, denoise: SrgbDenoiser, begin: Begin) -> Report:
    """Mean scores by phone on ``ValidationNoisyBlocksSrgb.mat`` and ``ValidationGtBlocksSrgb.mat``.

    1280 blocks of 256x256. Output clipped and rounded to 8 bits, as the benchmark scores; peak 255;
    PSNR over the three channels, SSIM per channel; then the mean over blocks. CycleISP's authors
    did not round, which changes the second or third decimal of PSNR.

    Raises:
        InputError: where a file cannot be read.
    """
    noisy, clean = (
        read_srgb_blocks(folder, name)
        for name in ("ValidationNoisyBlocksSrgb", "ValidationGtBlocksSrgb")
    )

    def judge(image: int, block: int) -> Judgement:
        return judged_srgb(denoise, noisy[image, block], clean[image, block])

    return _validate(folder, noisy, clean, judge, begin)


def _validate(
    folder: Path,
    noisy: npt.NDArray[Any],
    clean: npt.NDArray[Any],
    judge: Callable[[int, int], Judgement],
    begin: Begin,
) -> Report:
    if noisy.shape != clean.shape:
        raise InputError(
            "noisy and GT blocks differ", subject=folder, met=f"{noisy.shape} and {clean.shape}"
        )
    images, blocks = noisy.shape[:2]
    return mean_scores(
        [phone for phone in _phones(folder, images) for _ in range(blocks)],
        lambda index: judge(*divmod(index, blocks)),
        begin=lambda index: begin(_name(*divmod(index, blocks)), images * blocks),
    )


def submit_raw(
    folder: Path,
    output: Path,
    denoise: MosaicDenoiser,
    metadata: Path | None,
    begin: Begin,
    *,
    force: bool,
) -> Path:
    """``SubmitRaw.mat`` from ``BenchmarkNoisyBlocksRaw.mat``: float32 in [0, 1], not rounded.

    Args:
        folder: holds the blocks.
        output: the folder for the file, which is returned.
        denoise: from ``load_raw_denoiser``.
        metadata: as in ``validate_raw``.
        begin: told about progress.
        force: whether a file that stands there may be replaced.

    Raises:
        InputError: as ``validate_raw``.
        OutputError: where the file cannot be written.
    """
    noisy = read_raw_blocks(folder, "BenchmarkNoisyBlocksRaw")
    facts = _facts_of_images(folder, noisy, metadata)

    def run(image: int, block: int) -> npt.NDArray[Any]:
        return denoise(noisy[image, block], *facts(image))

    return _submit(noisy, run, output / "SubmitRaw.mat", "Raw", begin, force=force)


def submit_srgb(
    folder: Path, output: Path, denoise: SrgbDenoiser, begin: Begin, *, force: bool
) -> Path:
    """``SubmitSrgb.mat`` from ``BenchmarkNoisyBlocksSrgb.mat``: uint8, rounded.

    Raises:
        InputError: where the blocks cannot be read.
        OutputError: where the file cannot be written.
    """
    noisy = read_srgb_blocks(folder, "BenchmarkNoisyBlocksSrgb")

    def run(image: int, block: int) -> npt.NDArray[Any]:
        denoised = denoise(noisy[image, block].astype(np.float32) / np.float32(255))
        codes: npt.NDArray[np.uint8] = np.rint(denoised * np.float32(255)).astype(np.uint8)
        return codes

    return _submit(noisy, run, output / "SubmitSrgb.mat", "Srgb", begin, force=force)


def _submit(
    noisy: npt.NDArray[Any],
    run: Callable[[int, int], npt.NDArray[Any]],
    path: Path,
    space: SiddBlocks,
    begin: Begin,
    *,
    force: bool,
) -> Path:
    check_output(path, source=None, force=force)
    denoised = np.empty_like(noisy)
    seconds = 0.0
    for image, block in np.ndindex(noisy.shape[:2]):
        begin(_name(image, block), noisy.shape[0] * noisy.shape[1])
        start = time.perf_counter()
        denoised[image, block] = run(image, block)
        seconds += time.perf_counter() - start
    megapixels = np.prod(noisy.shape[:4]) / 1e6
    write_sidd_submission(path, denoised, space, seconds / megapixels, force=force)
    return path


def _facts_of_images(
    folder: Path, noisy: npt.NDArray[Any], metadata: Path | None
) -> Callable[[int], tuple[Phase, NoiseModel]]:
    """A function that gives the CFA phase and the noise of an image's blocks."""
    phones = _phones(folder, noisy.shape[0])
    files = [] if metadata is None else sorted(metadata.rglob("*METADATA_RAW_010.MAT"))
    if metadata is not None and len(files) != len(phones):
        raise InputError(
            "not one metadata file per image", subject=metadata, met=len(files), wanted=len(phones)
        )

    @functools.cache
    def facts(image: int) -> tuple[Phase, NoiseModel]:
        phase = PHONE_PHASES[phones[image]]
        if files:
            declared, noise = read_metadata(files[image])
            phase = declared or phase
        else:
            noise = _estimated(noisy[image], phase)
        if not _greens_agree(noisy[image], phase):
            raise InputError(
                f"the blocks of image {image + 1} do not look like {phase.value}",
                subject=folder,
                hint="the images may be in another order; give --metadata",
            )
        return phase, noise

    return facts


def _phones(folder: Path, images: int) -> tuple[str, ...]:
    if images > len(BLOCK_PHONES):
        raise InputError("too many images", subject=folder, met=images, wanted=len(BLOCK_PHONES))
    return BLOCK_PHONES[:images]


def _estimated(blocks: npt.NDArray[np.float32], phase: Phase) -> NoiseModel:
    """The noise of all blocks (M, H, W) of an image together, one below the other."""
    samples = np.rint(blocks.reshape(-1, blocks.shape[2]) * 65535).astype(np.uint16)
    frame = RawFrame(samples, phase, (0.0,) * 4, 65535.0, Area(0, 0, *samples.shape))
    return estimate_noise(frame).model


def _greens_agree(blocks: npt.NDArray[np.float32], phase: Phase) -> bool:
    """Whether the two planes taken for green have one mean, or at least not less than the others.

    Green planes differ by a few percent where light falls in at an angle; red and blue by more.
    """
    means = [float(blocks[:, row::2, column::2].mean()) for row, column in phase.plane_offsets]
    red, green_red, green_blue, blue = means
    apart = abs(green_red - green_blue)
    return apart <= max(0.05 * (green_red + green_blue), abs(red - blue))


def _name(image: int, block: int) -> str:
    return f"{image + 1:02d}_{block + 1:02d}"
