"""Frames into files: a folder of DNGs, or one file with frame behind frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cycleisp_runtime.denoised import Denoised
from cycleisp_runtime.errors import OutputError
from cycleisp_runtime.frame import RawFrame
from cycleisp_runtime.sinks import Write
from cycleisp_runtime.writers import atomic_output, write_frame

__all__ = ["dng_folder", "packed_file", "packed_layout"]


@contextmanager
def dng_folder(folder: Path, *, force: bool = False) -> Iterator[Write]:
    """A folder for frame_000000.dng and so on, made if its parent exists; each is whole or absent.

    Raises:
        OutputError: where a file cannot be written, or exists and ``force`` is not given.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(
            "the folder cannot be made", subject=folder, met=error.strerror
        ) from error
    count = 0

    def write(denoised: Denoised) -> None:
        nonlocal count
        write_frame(
            denoised.frame,
            folder / f"frame_{count:06}.dng",
            level_scale=denoised.level_scale,
            noise_reduction=denoised.strength,
            residual_noise=denoised.residual,
            force=force,
        )
        count += 1

    yield write


@contextmanager
def packed_file(path: Path, *, source: Path | None = None, force: bool = False) -> Iterator[Write]:
    """A file of pictures without masked border, uint16 little endian, one behind the other.

    It holds whole frames only, and is read again by the layout that ``packed_layout`` writes.

    Args:
        path: the file, which appears when the block ends well.
        source: the file that the frames come from; never overwritten.
        force: whether another file at ``path`` may be replaced.

    Raises:
        OutputError: where it cannot be written, or frames differ in size, phase or levels.
    """
    with atomic_output(path, source=source, force=force) as file:
        layout = None
        end = 0

        def write(denoised: Denoised) -> None:
            nonlocal layout, end
            its_layout = packed_layout(denoised.frame)
            layout = its_layout if layout is None else layout
            if its_layout != layout:
                raise OutputError(
                    "frames of one file must be alike",
                    subject=path,
                    met=its_layout,
                    wanted=layout,
                    hint="write a folder of DNGs, or --keep-levels where only levels differ",
                )
            file.write(denoised.frame.visible.astype("<u2", order="C").data)
            end = file.tell()

        yield write
        file.truncate(end)


def packed_layout(frame: RawFrame) -> str:
    """How to read what ``packed_file`` writes of this frame, as ``DumpLayout.parse`` takes it."""
    black = sum(frame.black) / 4
    return (
        f"width={frame.area.width},height={frame.area.height},cfa={frame.cfa.value},packing=u16le,"
        f"black={black:g},white={frame.white:g}"
    )
