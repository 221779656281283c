from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cycleisp_runtime.errors import OutputError
from cycleisp_runtime.writers import atomic_output, check_output


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.dng"
    path.write_bytes(b"noisy")
    return path


def write(path: Path, *, source: Path | None = None, force: bool = False) -> None:
    with atomic_output(path, source=source, force=force) as file:
        file.write(b"clean")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_with_its_content_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "out.dng")
    assert (tmp_path / "out.dng").read_bytes() == b"clean"
    assert names(tmp_path) == ["out.dng"]


def test_it_is_not_there_before_the_block_ends(tmp_path: Path) -> None:
    with atomic_output(tmp_path / "out.dng", source=None, force=False):
        assert not (tmp_path / "out.dng").exists()


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write(tmp_path / "out.dng")
    finally:
        os.umask(old)
    assert (tmp_path / "out.dng").stat().st_mode & 0o777 == 0o640


def test_an_existing_output_needs_force(tmp_path: Path) -> None:
    path = tmp_path / "out.dng"
    path.write_bytes(b"older")
    with pytest.raises(OutputError, match="already exists; --force overwrites it"):
        write(path)
    assert path.read_bytes() == b"older"
    write(path, force=True)
    assert path.read_bytes() == b"clean"


def test_an_output_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "out.dng"
    with (
        pytest.raises(OutputError, match="already exists"),
        atomic_output(path, source=None, force=False),
    ):
        path.write_bytes(b"of another process")
    assert path.read_bytes() == b"of another process"
    assert names(tmp_path) == ["out.dng"]


@pytest.mark.parametrize("name", ["in.dng", "soft.dng", "hard.dng", "folder/../in.dng"])
def test_the_input_is_never_overwritten(source: Path, name: str) -> None:
    (source.parent / "folder").mkdir()
    (source.parent / "soft.dng").symlink_to(source)
    (source.parent / "hard.dng").hardlink_to(source)
    with pytest.raises(OutputError, match="overwrite its input"):
        write(source.parent / name, source=source, force=True)
    assert source.read_bytes() == b"noisy"


def test_a_dangling_link_counts_as_an_output(tmp_path: Path) -> None:
    (tmp_path / "out.dng").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="already exists"):
        write(tmp_path / "out.dng")


def test_only_files_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "out.dng").mkdir()
    with pytest.raises(OutputError, match="not a file"):
        write(tmp_path / "out.dng", force=True)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"folder does not exist; create .*none first"):
        write(tmp_path / "none" / "out.dng")


def test_a_file_is_no_folder(source: Path) -> None:
    with pytest.raises(OutputError, match="folder does not exist"):
        check_output(source / "out.dng", source=None, force=False)


@pytest.fixture
def folder_of_another_user() -> Iterator[Path]:
    """A folder that this process must not write to, even where the tests run as root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        yield folder
        if user == 0:
            os.seteuid(0)


def test_a_folder_without_permission_is_refused(folder_of_another_user: Path) -> None:
    with pytest.raises(OutputError, match="permission denied; choose a folder") as caught:
        write(folder_of_another_user / "out.dng")
    assert isinstance(caught.value.__cause__, PermissionError)


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "no space left on device; free some space"), (errno.EIO, "error")],
)
def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    def fail(_file: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match=message):
        write(tmp_path / "out.dng")
    assert names(tmp_path) == []


FILL_THE_DISK = """
import resource, sys
from pathlib import Path
from cycleisp_runtime.errors import OutputError
from cycleisp_runtime.writers import atomic_output

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with atomic_output(Path(sys.argv[1]), source=None, force=True) as file:
        for _ in range(100):
            file.write(bytes(10_000))
except OutputError as error:
    print(error)
"""


def test_the_system_refusing_a_write_keeps_the_older_output(tmp_path: Path) -> None:
    path = tmp_path / "out.dng"
    path.write_bytes(b"older")
    done = subprocess.run(
        [sys.executable, "-c", FILL_THE_DISK, path],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "out.dng: cannot be written: file too large" in done.stdout
    assert path.read_bytes() == b"older"
    assert names(tmp_path) == ["out.dng"]


@pytest.mark.parametrize("written", [b"", b"half of it"])
def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, written: bytes) -> None:
    path = tmp_path / "out.dng"
    path.write_bytes(b"older")

    def interrupted() -> None:
        with atomic_output(path, source=None, force=True) as file:
            file.write(written)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"older"
    assert names(tmp_path) == ["out.dng"]


def test_an_error_of_ours_passes_through(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="too large"),
        atomic_output(tmp_path / "out.dng", source=None, force=False),
    ):
        raise OutputError("too large")
    assert names(tmp_path) == []
