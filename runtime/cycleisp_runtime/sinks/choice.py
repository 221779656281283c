"""A sink by what its name says: a pipeline, a file of packed frames, a folder of DNGs, or none."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from cycleisp_runtime.denoised import Denoised
from cycleisp_runtime.errors import SettingsError
from cycleisp_runtime.sinks import Write
from cycleisp_runtime.sinks.files import dng_folder, packed_file
from cycleisp_runtime.sinks.gstreamer import gstreamer_pipeline
from cycleisp_runtime.sources.choice import PIPELINE

__all__ = ["open_sink"]


def open_sink(name: str, *, source: str, force: bool) -> AbstractContextManager[Write]:
    """The sink that ``name`` stands for.

    Args:
        name: "gst:" and a pipeline without a source; "none"; a file in .raw, of packed frames; else
            a folder, of DNGs.
        source: name of the frames' source, which is never overwritten.
        force: whether files that exist may be replaced.

    Raises:
        SettingsError: where the name is that of a file of another kind.
    """
    if name.startswith(PIPELINE):
        return gstreamer_pipeline(name.removeprefix(PIPELINE))
    if name == "none":
        return nullcontext(_forget)
    path = Path(name)
    if path.suffix.lower() == ".raw":
        return packed_file(path, source=Path(source), force=force)
    if path.suffix and not path.is_dir():
        raise SettingsError(
            "files of this kind are not written",
            subject=path,
            wanted="a name in .raw, or a folder's without a suffix",
        )
    return dng_folder(path, force=force)


def _forget(_denoised: Denoised) -> None:
    return
