"""Which files a batch reads and writes, and what it refuses before it starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cycleisp_runtime.errors import InputError, OutputError, SettingsError
from cycleisp_runtime.jobs import find_inputs, plan_jobs


@pytest.fixture
def shoot(tmp_path: Path) -> Path:
    """A folder with RAW files, others, and more below."""
    for name in ("b.NEF", "a.dng", "a.jpg", ".hidden.dng", "day2/c.arw", "day2/notes.txt"):
        path = tmp_path / "shoot" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "shoot"


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_a_folder_gives_its_raw_files_in_order(shoot: Path) -> None:
    assert names(find_inputs([shoot])) == ["a.dng", "b.NEF"]
    assert names(find_inputs([shoot], recursive=True)) == ["a.dng", "b.NEF", "c.arw"]


def test_a_pattern_gives_what_it_matches(shoot: Path) -> None:
    assert names(find_inputs([f"{shoot}/*.jpg", f"{shoot}/**/*.arw"])) == ["a.jpg", "c.arw"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(shoot: Path) -> None:
    (shoot / "a[1].dng").touch()
    assert names(find_inputs([shoot / "a[1].dng"])) == ["a[1].dng"]


def test_a_missing_file_is_left_to_its_reader(shoot: Path) -> None:
    assert names(find_inputs([shoot / "none.dng"])) == ["none.dng"]


def test_a_loop_of_links_is_left_to_its_reader(shoot: Path) -> None:
    loop = shoot / "loop.dng"
    loop.symlink_to(loop)
    assert find_inputs([loop], recursive=True, outside=loop) == [loop]
    assert loop in find_inputs([shoot], recursive=True, outside=loop)


def test_a_file_named_twice_is_read_once(shoot: Path) -> None:
    assert names(find_inputs([shoot / "a.dng", shoot, shoot / "day2/../a.dng"])) == [
        "a.dng",
        "b.NEF",
    ]


def test_outputs_inside_the_searched_folder_are_no_inputs(shoot: Path) -> None:
    (shoot / "out").mkdir()
    (shoot / "out/a.dng").touch()
    found = find_inputs([shoot], recursive=True, outside=shoot / "out")
    assert names(found) == ["a.dng", "b.NEF", "c.arw"]


def test_links_to_folders_are_not_searched(shoot: Path) -> None:
    (shoot / "day2/loop").symlink_to(shoot)
    assert names(find_inputs([shoot], recursive=True)) == ["a.dng", "b.NEF", "c.arw"]


@pytest.mark.parametrize("name", ["empty", "*.cr3"])
def test_folders_and_patterns_without_files_are_refused(shoot: Path, name: str) -> None:
    (shoot / "empty").mkdir()
    with pytest.raises(InputError, match=r"no RAW file in this folder|no file matches"):
        find_inputs([shoot / name])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_our_error(shoot: Path) -> None:
    shoot.chmod(0)
    try:
        with pytest.raises(InputError, match="Permission denied"):
            find_inputs([shoot])
    finally:
        shoot.chmod(0o700)


@pytest.mark.parametrize("suffix", [".dng", ".tif", ".tiff", ".PNG"])
def test_one_input_and_a_picture_suffix_is_that_file(tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"out{suffix}"
    (job,) = plan_jobs([Path("a.arw")], output)
    assert (job.source, job.output) == (Path("a.arw"), output)


@pytest.mark.parametrize(
    ("name", "suffixes"),
    [("out.jpg", (".dng", ".png")), ("out.NEF", (".dng", ".png")), ("out.dng", (".jpg",))],
)
def test_a_name_of_a_file_that_is_not_written_is_not_taken_for_a_folder(
    tmp_path: Path, name: str, suffixes: tuple[str, ...]
) -> None:
    with pytest.raises(SettingsError, match="files of this kind are not written"):
        plan_jobs([Path("a.arw")], tmp_path / name, suffixes=suffixes)


def test_otherwise_the_output_is_a_folder_of_stems(tmp_path: Path) -> None:
    jobs = plan_jobs([Path("x/a.arw"), Path("y/b.tar.dng")], tmp_path / "out")
    assert [job.output for job in jobs] == [tmp_path / "out/a.dng", tmp_path / "out/b.tar.dng"]
    (job,) = plan_jobs([Path("a.arw")], tmp_path, file_format="tif")
    assert job.output == tmp_path / "a.tif"


def test_a_folder_may_look_like_a_picture(tmp_path: Path) -> None:
    (tmp_path / "album.dng").mkdir()
    (job,) = plan_jobs([Path("a.arw")], tmp_path / "album.dng")
    assert job.output == tmp_path / "album.dng/a.dng"


def test_two_inputs_of_one_output_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"a\.dng: two inputs .*x/a\.arw and y/a\.dng"):
        plan_jobs([Path("x/a.arw"), Path("y/a.dng")], tmp_path)


def test_several_inputs_of_one_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="several inputs cannot become one file"):
        plan_jobs([Path("a.arw"), Path("b.arw")], tmp_path / "out.dng")


def test_format_and_suffix_must_agree(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="format and suffix disagree"):
        plan_jobs([Path("a.arw")], tmp_path / "out.tif", file_format="png")
    assert plan_jobs([Path("a.arw")], tmp_path / "out.tiff", file_format="tif")


def test_a_folder_is_made_only_where_its_parent_exists(tmp_path: Path) -> None:
    for output in (tmp_path / "none/out", tmp_path / "none/out.dng"):
        with pytest.raises(OutputError, match="none: the folder does not exist"):
            plan_jobs([Path("a.arw")], output)


@pytest.mark.parametrize("name", ["out", "out.dng"])
def test_a_folder_that_may_not_be_written_to_is_refused_before_the_first_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # Root may write anywhere, so that the system's answer is made up here.
    monkeypatch.setattr(os, "access", lambda path, _mode: path != tmp_path)
    with pytest.raises(OutputError, match="the folder cannot be written to"):
        plan_jobs([Path("a.arw")], tmp_path / name)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="out: not a folder"):
        plan_jobs([Path("a.arw")], tmp_path / "out")
