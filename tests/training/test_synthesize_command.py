"""``cycleisp synthesize``: the same bytes whoever makes them and when, and how it fails."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from click.testing import CliRunner, Result
from PIL import Image

from cycleisp.data.sidd import find_sidd_pairs, read_sidd_pair
from cycleisp.synthesis.shard_reader import ShardedPairs
from cycleisp.synthesis.shards import read_index
from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.cli import main
from cycleisp_runtime.readers import read_frame
from tests.training.pictures import write_photographs
from tests.training.synthesis_networks import NAMES, small_networks, write_networks
from tests.training.test_sidd import write_frame


@pytest.fixture(name="given", scope="module")
def photographs_and_networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    write_photographs(folder / "photographs", 5, 40)
    write_networks(folder / "networks")
    return folder


def arguments(given: Path, kind: str, output: Path, *more: str) -> list[str]:
    names = NAMES[:1] if kind == "raw" else NAMES
    networks = [
        part
        for name in names
        for part in (f"--{name.replace('_', '-')}", str(given / f"networks/{name}.safetensors"))
    ]
    return ["synthesize", kind, "-o", str(output), *networks, "--samples-per-shard", "2", *more]


def run(given: Path, kind: str, output: Path, *more: str) -> Result:
    noise = () if kind == "sidd" else ("--noise", "cycleisp-dnd")
    photographs = () if kind == "sidd" else (str(given / "photographs"),)
    return CliRunner().invoke(main, arguments(given, kind, output, *noise, *photographs, *more))


def process(
    given: Path, output: Path, photographs: Path, **environment: str
) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    command = arguments(given, "srgb", output, "--noise", "cycleisp-dnd", str(photographs))
    program = f"from cycleisp_runtime.cli import main; main({command!r})"
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(name="whole", scope="module")
def result_of_one_run(given: Path) -> Path:
    output = given / "whole"
    assert run(given, "srgb", output).exit_code == 0
    return output


def test_the_result_is_shards_and_an_index(given: Path, whole: Path) -> None:
    assert sorted(contents(whole)) == [
        "index.json",
        "recipe.json",
        *(f"shard-00000{number}.{kind}" for number in range(3) for kind in ("json", "tar")),
    ]
    pairs = ShardedPairs(whole, verify=True)
    assert [pairs[number].key for number in range(5)] == [
        f"000000{i}-picture_{i}" for i in range(5)
    ]
    for number in range(5):
        with Image.open(given / f"photographs/picture_{number}.png") as picture:
            codes = np.asarray(picture).transpose(2, 0, 1)
        clean, noisy = pairs[number].floats()
        # The default target is the photograph itself, in 16 bits.
        np.testing.assert_allclose(clean, codes / 255, rtol=0, atol=1e-5)
        assert (noisy != clean).any()
    levels = {pairs[number].level for number in range(5)}
    assert len({level.pixel.mean_shot for level in levels}) == 5


def test_a_second_run_keeps_what_is_there(given: Path, whole: Path) -> None:
    before = contents(whole)
    times = [path.stat().st_mtime_ns for path in sorted(whole.glob("shard-*"))]
    again = run(given, "srgb", whole, "--json")
    assert again.exit_code == 0
    outcome = json.loads(again.stdout)
    assert (outcome["made"], outcome["kept"], outcome["complete"]) == (0, 3, True)
    assert contents(whole) == before
    assert [path.stat().st_mtime_ns for path in sorted(whole.glob("shard-*"))] == times


def test_a_missing_and_an_altered_shard_are_made_again(
    given: Path, whole: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    (copy / "shard-000000.tar").unlink()
    with (copy / "shard-000002.tar").open("r+b") as file:
        file.seek(700)
        file.write(b"\xff\xfe")
    outcome = json.loads(run(given, "srgb", copy, "--json").stdout)
    assert (outcome["made"], outcome["kept"]) == (3, 1)
    assert contents(copy) == contents(whole)


def test_the_order_of_inputs_changes_nothing(given: Path, whole: Path, tmp_path: Path) -> None:
    files = [str(path) for path in sorted((given / "photographs").iterdir(), reverse=True)]
    command = arguments(given, "srgb", tmp_path / "other", "--noise", "cycleisp-dnd", *files)
    assert CliRunner().invoke(main, command).exit_code == 0
    assert contents(tmp_path / "other") == contents(whole)


def test_a_picture_has_the_same_noise_in_any_company(
    given: Path, whole: Path, tmp_path: Path
) -> None:
    alone = str(given / "photographs/picture_3.png")
    command = arguments(given, "srgb", tmp_path / "alone", "--noise", "cycleisp-dnd", alone)
    assert CliRunner().invoke(main, command).exit_code == 0
    pair, among = ShardedPairs(tmp_path / "alone")[0], ShardedPairs(whole)[3]
    np.testing.assert_array_equal(pair.noisy, among.noisy)
    assert pair.level == among.level


def test_the_seed_changes_the_noise(given: Path, whole: Path, tmp_path: Path) -> None:
    assert run(given, "srgb", tmp_path / "other", "--seed", "1").exit_code == 0
    assert ShardedPairs(tmp_path / "other")[0].level != ShardedPairs(whole)[0].level


def test_the_index_is_there_when_the_last_ranks_shards_are(
    given: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "ranks"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert "other processes are not done" in run(given, "srgb", output).stdout
    assert sorted(contents(output)) == ["recipe.json", "shard-000001.json", "shard-000001.tar"]
    monkeypatch.setenv("RANK", "0")
    assert run(given, "srgb", output).exit_code == 0
    assert contents(output) == contents(whole)


@pytest.mark.slow
def test_two_ranks_side_by_side_make_what_one_does(
    given: Path, whole: Path, tmp_path: Path
) -> None:
    output, photographs = tmp_path / "both", given / "photographs"
    ranks = [process(given, output, photographs, RANK=rank, WORLD_SIZE="2") for rank in "01"]
    for rank in ranks:
        _, errors = rank.communicate(timeout=120)
        assert (rank.returncode, errors) == (0, "")
    assert contents(output) == contents(whole)


@pytest.mark.slow
def test_killed_in_the_middle_and_started_again_it_ends_the_same(
    given: Path, tmp_path: Path
) -> None:
    photographs, output = write_photographs(tmp_path / "photographs", 60, 40), tmp_path / "killed"
    killed = process(given, output, photographs)
    while killed.poll() is None and not (output / "shard-000002.json").exists():
        time.sleep(0.005)
    killed.kill()
    killed.communicate()
    assert not (output / "index.json").exists()
    assert 3 <= len(list(output.glob("shard-*.json"))) < 30
    for name in ("killed", "unbroken"):
        command = arguments(given, "srgb", tmp_path / name, "--noise", "cycleisp-dnd")
        assert CliRunner().invoke(main, [*command, str(photographs)]).exit_code == 0
    # What was being written has a temporary name, which nothing reads.
    left = {name: data for name, data in contents(output).items() if not name.startswith(".")}
    assert left == contents(tmp_path / "unbroken")


def test_bad_pictures_are_listed_counted_and_passed_by(given: Path, tmp_path: Path) -> None:
    photographs = tmp_path / "photographs"
    shutil.copytree(given / "photographs", photographs)
    (photographs / "a_text.jpg").write_text("no picture", encoding="utf-8")
    whole = (photographs / "picture_1.png").read_bytes()
    (photographs / "picture_1.png").write_bytes(whole[: len(whole) // 2])
    command = arguments(
        given, "srgb", tmp_path / "out", "--noise", "cycleisp-dnd", str(photographs), "--json"
    )
    for kept in (0, 3):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 1
        outcome = json.loads(done.stdout)
        assert outcome["kept"] == kept
        assert [each["source"] for each in outcome["skipped"]] == ["a_text.jpg", "picture_1.png"]
        assert done.stderr.count("\n") == 2
        assert "a_text.jpg: skipped: not a readable picture" in done.stderr
    assert len(ShardedPairs(tmp_path / "out")) == 4
    skipped = [
        each.source for shard in read_index(tmp_path / "out").shards for each in shard.skipped
    ]
    assert skipped == ["a_text.jpg", "picture_1.png"]


def test_raw_becomes_dng_npz_and_png(given: Path, tmp_path: Path) -> None:
    for file_format in ("npz", "dng", "png"):
        assert run(given, "raw", tmp_path / file_format, "--as", file_format).exit_code == 0
    with np.load(tmp_path / "npz/0000002-picture_2.npz", allow_pickle=False) as arrays:
        noisy, shot = arrays["noisy"], arrays["shot"]
        assert (noisy.shape, noisy.dtype) == ((4, 20, 20), np.float32)
    frame = read_frame(tmp_path / "dng/0000002-picture_2.noisy.dng")
    assert frame.cfa is Phase.RGGB
    # Half a step of 1/65535, and the rounding of float32 at 1.
    np.testing.assert_allclose(
        frame.visible[0::2, 0::2] / 65535, noisy[0], rtol=0, atol=0.5 / 65535 + 1e-7
    )
    assert frame.noise_profile is not None
    assert frame.noise_profile.shot == pytest.approx(tuple(shot))
    with Image.open(tmp_path / "png/0000002-picture_2.clean.png") as picture:
        assert (picture.size, picture.mode) == ((20, 20), "RGB")
    again = json.loads(run(given, "raw", tmp_path / "dng", "--as", "dng", "--json").stdout)
    assert (again["made"], again["kept"]) == (0, 5)


@pytest.mark.parametrize("kind", ["raw", "srgb"])
def test_the_contact_sheet_is_a_picture(given: Path, tmp_path: Path, kind: str) -> None:
    sheet = tmp_path / "sheet.png"
    assert run(given, kind, tmp_path / "out", "--contact-sheet", str(sheet)).exit_code == 0
    with Image.open(sheet) as picture:
        columns, rows = picture.width / 196, picture.height / 408
    assert (columns, rows) == (4 if kind == "raw" else 5, 5)


@pytest.mark.parametrize("phone", ["GP", "IP"])
def test_sidd_gets_the_noise_of_its_phone(given: Path, tmp_path: Path, phone: str) -> None:
    clean_mosaic = write_frame(tmp_path / "sidd", phone)
    write_frame(tmp_path / "sidd", "N6")
    next((tmp_path / "sidd/Data").glob("*_N6_*/*GT_RAW*")).unlink()
    sheet = str(tmp_path / "sheet.png")
    more = (str(tmp_path / "sidd"), "--target", "blurred", "--contact-sheet", sheet)
    done = run(given, "sidd", tmp_path / "out", *more)
    assert done.exit_code == 1
    assert "_N6_00100_00060_3200_L/010: skipped: not all files" in done.stderr
    pair = ShardedPairs(tmp_path / "out")[0]
    assert pair.level.pixel.shot == (1e-3,) * 4

    to_raw, branch, to_rgb = small_networks()
    (files,), _ = find_sidd_pairs(tmp_path / "sidd")
    frame = read_sidd_pair(files)
    # The Pixel's BGGR becomes RGGB when both are mirrored both ways.
    turn = slice(None, None, -1 if phone == "GP" else 1)
    rgb = torch.from_numpy(frame.clean.rgb[turn, turn].transpose(2, 0, 1).copy())[None] / 255
    with torch.inference_mode():
        clean = to_raw(rgb).clamp(0, 1)
        noisy = to_rgb((clean + 0.01).clamp(0, 1), branch(rgb)).clamp(0, 1)[0].numpy()
    assert frame.clean.mosaic.shape == clean_mosaic.shape
    # Half a step of 1/65535, and the float32 difference of the two mosaics.
    np.testing.assert_allclose(pair.floats()[1], noisy, rtol=0, atol=0.5 / 65535 + 1e-6)
    np.testing.assert_allclose(pair.floats()[0], rgb[0].numpy(), rtol=0, atol=1e-5)


def test_pictures_of_16_bits_keep_them(given: Path, tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 65536, (16, 20, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", codes, photometric="rgb")
    command = arguments(
        given, "srgb", tmp_path / "out", "--noise", "unprocessing", str(tmp_path / "a.tif")
    )
    assert CliRunner().invoke(main, command).exit_code == 0
    np.testing.assert_array_equal(ShardedPairs(tmp_path / "out")[0].clean, codes.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("kind", "more", "reason"),
    [
        ("raw", ("nowhere.png", "--as", "dng", "--target", "blurred"), "pairs of RAW have one"),
        ("srgb", ("--as", "dng"), "a DNG holds RAW"),
        ("srgb", ("--noise", "loud"), "no such noise law"),
        ("srgb", ("--noise", "nowhere.json"), "nowhere.json: cannot be read"),
        ("srgb", ("--rgb2raw", "nowhere.safetensors"), "not a readable safetensors file"),
        ("srgb", ("-o", "nowhere/out"), "cannot be made or read"),
        ("sidd", ("nowhere", "--noise", "cycleisp-sidd"), "SIDD brings its own noise"),
        ("sidd", ("nowhere",), "nowhere: cannot be read"),
    ],
)
def test_a_failure_is_one_line(
    given: Path, tmp_path: Path, kind: str, more: tuple[str, ...], reason: str
) -> None:
    failed = run(given, kind, tmp_path / "out", *more)
    assert failed.exit_code in {1, 2}
    assert failed.stdout == ""
    assert failed.stderr.startswith("cycleisp: error: ")
    assert reason in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_networks_of_another_stage_or_none_are_refused(given: Path, tmp_path: Path) -> None:
    wrong = str(given / "networks/raw2rgb.safetensors")
    failed = run(given, "srgb", tmp_path / "out", "--rgb2raw", wrong)
    assert failed.exit_code == 1
    assert "the wrong network (met raw2rgb small, wanted rgb2raw" in failed.stderr
    command = arguments(given, "raw", tmp_path / "out", "--noise", "cycleisp-dnd", str(given))
    failed = CliRunner().invoke(main, [command[0], "srgb", *command[2:]])
    assert "color_branch: missing" in failed.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_synthesis_is_left_alone(given: Path, whole: Path) -> None:
    before = contents(whole)
    for more in (("--seed", "5"), ("--target", "blurred"), ("--as", "npz"), ("--poisson",)):
        failed = run(given, "srgb", whole, *more)
        assert failed.exit_code == 1
        assert "holds another synthesis: its" in failed.stderr
    assert contents(whole) == before


def test_a_full_disk_leaves_nothing_half_written(given: Path, tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limit[1]))
    try:
        failed = run(given, "srgb", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert failed.exit_code == 1
    assert "cannot be written" in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert sorted(contents(tmp_path / "out")) == ["recipe.json"]
    assert run(given, "srgb", tmp_path / "out").exit_code == 0


def test_a_folder_that_cannot_be_written_is_one_line(given: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"a file")
    failed = run(given, "srgb", tmp_path / "out")
    assert failed.exit_code == 1
    assert failed.stderr.count("\n") == 1
    assert (tmp_path / "out").read_bytes() == b"a file"
