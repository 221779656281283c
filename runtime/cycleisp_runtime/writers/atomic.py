"""Outputs that appear whole at their path, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cycleisp_runtime.errors import OutputError

__all__ = ["atomic_output", "check_output"]

_HINTS: dict[int | None, str] = {
    None: "free some space or write elsewhere",  # a short write of NumPy, which knows no errno
    errno.ENOSPC: "free some space or write elsewhere",
    errno.EDQUOT: "free some of your quota or write elsewhere",
    errno.EFBIG: "write to a file system or with a limit that allows larger files",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
}


def check_output(path: Path, *, source: Path | None, force: bool) -> None:
    """Nothing, where ``path`` may be written.

    Args:
        path: the file to be written.
        source: the file that it is made from; never overwritten, by whatever name or link.
        force: whether another file that stands at ``path`` may be replaced.

    Raises:
        OutputError: where its folder does not exist, a file is there already, or it is ``source``.
    """
    try:
        if not path.parent.is_dir():
            raise OutputError(
                "the folder does not exist", subject=path, hint=f"create {path.parent} first"
            )
        if source is not None and path.exists() and source.exists() and path.samefile(source):
            raise OutputError(
                "the output would overwrite its input", subject=path, hint="choose another name"
            )
        if path.exists() and not path.is_file():
            raise OutputError("this is not a file", subject=path, hint="choose another name")
        if not force and (path.exists() or path.is_symlink()):
            raise OutputError(
                "the output already exists", subject=path, hint="--force overwrites it"
            )
    except OSError as error:
        raise _output_error(error, path) from error


@contextlib.contextmanager
def atomic_output(path: Path, *, source: Path | None, force: bool) -> Iterator[BinaryIO]:
    """A file to write and read back, which takes its place at ``path`` when the block ends well.

    It is written under a temporary name in the same folder, synced and renamed. When the block
    ends by any exception, an interrupt among them, nothing is left behind and what stood at
    ``path`` before stands there still. An OSError in the block is taken for one of the output.

    Raises:
        OutputError: as ``check_output``, or where the system refuses to write (no space, no
            permission, file too large).
    """
    check_output(path, source=source, force=force)
    temporary = path.with_name(f".cycleisp-{secrets.token_hex(8)}.part")
    try:
        with temporary.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        check_output(path, source=source, force=force)
        temporary.replace(path)
    except OSError as error:
        raise _output_error(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _output_error(error: OSError, path: Path) -> OutputError:
    problem = (error.strerror or str(error)).lower()
    return OutputError(f"cannot be written: {problem}", subject=path, hint=_HINTS.get(error.errno))
