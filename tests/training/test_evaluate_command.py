"""``cycleisp evaluate``: what it measures, what it writes for the servers, and how it fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from scipy.io import loadmat

from cycleisp.data.photographs import load_photograph
from cycleisp.data.sidd_blocks import BLOCK_PHONES
from cycleisp.data.sidd_metadata import PHONE_PHASES
from cycleisp.evaluation.metrics import psnr, ssim
from cycleisp.evaluation.pairs import find_picture_pairs
from cycleisp.models import create_model
from cycleisp.models.storage import save_network
from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.cli import main
from tests.helpers import shared
from tests.training.matlab_files import PATTERNS, write_dnd, write_metadata, write_v5
from tests.training.test_loop import files_no_longer_than

NOISE = (1e-3, 1e-6)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def weights(folder: Path, name: str, size: str = "small", *, offset: float = 0.0) -> Path:
    """A network that gives its input back, plus an offset."""
    network = create_model(name, size)
    tail = network.tail if size in {"edge", "tiny"} else network.tail[0]  # type: ignore[index]
    with torch.no_grad():
        tail.weight.zero_()  # type: ignore[union-attr,operator]
        tail.bias.fill_(offset)  # type: ignore[union-attr,operator]
    path = folder / f"{name}_{size}.safetensors"
    save_network(path, network, name, size)
    return path


@pytest.fixture(name="srgb")
def identity_on_srgb(tmp_path: Path) -> Path:
    return weights(tmp_path, "srgb_denoiser")


def write_pair(folder: Path, name: str, step: int) -> None:
    """A pair that differs by ``step`` everywhere."""
    codes = np.random.default_rng(0).integers(0, 200, (24, 32, 3), np.uint8)
    Image.fromarray(codes).save(folder / f"{name}_clean.png")
    Image.fromarray(codes + np.uint8(step)).save(folder / f"{name}_noisy.png")


def test_pairs_are_measured_by_group(srgb: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    for name, step in (("a_1", 2), ("a_2", 4), ("b_x_1", 8)):
        write_pair(folder, name, step)
    done = run("pairs", folder, "--model", srgb, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert [(mean["group"], mean["pictures"]) for mean in report["means"]] == [
        ("a", 2),
        ("b", 1),
        ("all", 3),
    ]
    one, two, three = (20 * np.log10(255 / step) for step in (2, 4, 8))
    expected = [(one + two) / 2, three, (one + two + three) / 3]
    for mean, value in zip(report["means"], expected, strict=True):
        assert mean["mean"]["noisy_psnr"] == pytest.approx(value, abs=1e-9)
        assert mean["mean"]["psnr"] == mean["mean"]["noisy_psnr"]
        assert mean["mean"]["ssim"] == mean["mean"]["noisy_ssim"] < 1
        assert mean["mean"]["seconds_per_mp"] > 0


def test_the_output_is_rounded_to_8_bits(tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    write_pair(folder, "a", 2)
    for offset, step in ((0.4 / 255, 2), (0.6 / 255, 3), (-2 / 255, 0)):
        model = weights(tmp_path, "srgb_denoiser", offset=offset)
        (mean,) = json.loads(run("pairs", folder, "--model", model, "--json").stdout)["means"]
        expected = 20 * np.log10(255 / step) if step else None
        assert mean["mean"]["psnr"] == (
            expected if step == 0 else pytest.approx(expected, abs=1e-9)
        )


def test_two_folders_hold_pairs_too(srgb: Path, tmp_path: Path) -> None:
    for kind, step in (("noisy", 1), ("clean", 0)):
        (tmp_path / "pairs" / kind).mkdir(parents=True)
        codes = np.full((16, 16, 3), 100 + step, np.uint8)
        Image.fromarray(codes).save(tmp_path / "pairs" / kind / "scene_1.png")
    done = run("pairs", tmp_path / "pairs", "--model", srgb)
    assert done.exit_code == 0
    assert re.search(r"^scene +1 +48\.13 -> +48\.13 ", done.stdout, re.MULTILINE)


def test_a_bad_pair_is_reported_and_counted_and_the_others_are_measured(
    srgb: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    for name in ("a_1", "a_2", "a_3"):
        write_pair(folder, name, 2)
    (folder / "a_2_clean.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((5, 5, 3), np.uint8)).save(folder / "a_3_noisy.png")
    done = run("pairs", folder, "--model", srgb, "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["means"][0]["pictures"] == 1
    assert json.loads(done.stdout)["failed"] == 2
    first, second = done.stderr.splitlines()
    assert re.fullmatch(r"cycleisp: error: .*a_2_clean\.png: not a readable picture", first)
    assert "a_3_noisy.png: not a pair that can be judged (met 5x5 and 32x24" in second


def test_the_real_pairs_have_the_noise_that_their_index_says() -> None:
    values: dict[str, list[float]] = {"cc15": [], "polyu": []}
    for pair in find_picture_pairs(shared("data", "pairs")):
        noisy, clean = load_photograph(pair.noisy), load_photograph(pair.clean)
        values[pair.group].append(psnr(noisy, clean, 255))
    assert {group: len(each) for group, each in values.items()} == {"cc15": 13, "polyu": 47}
    assert np.mean(values["cc15"]) == pytest.approx(33.65, abs=5e-3)
    assert np.mean(values["polyu"]) == pytest.approx(36.08, abs=5e-3)


def raw_blocks(images: int, blocks: int, side: int = 64) -> npt.NDArray[np.float32]:
    """Blocks whose red, green and blue differ, each in the phase of its phone."""
    rng = np.random.default_rng(0)
    content = np.empty((images, blocks, side, side), np.float32)
    for image in range(images):
        phase = PHONE_PHASES[BLOCK_PHONES[image]]
        for level, (row, column) in zip((0.2, 0.4, 0.4, 0.1), phase.plane_offsets, strict=True):
            light = rng.uniform(0.5, 1, (blocks, side // 2, side // 2))
            content[image, :, row::2, column::2] = level * light
    return content


def write_raw_validation(folder: Path, clean: npt.NDArray[np.float32], error: float) -> Path:
    folder.mkdir()
    write_v5(folder / "ValidationGtBlocksRaw.mat", ValidationGtBlocksRaw=clean)
    noisy = clean + np.float32(error)
    write_v5(folder / "ValidationNoisyBlocksRaw.mat", ValidationNoisyBlocksRaw=noisy)
    return folder


def write_all_metadata(folder: Path, images: int) -> Path:
    for image in range(images):
        scene = folder / f"{image:04d}_scene"
        scene.mkdir(parents=True)
        phase = PHONE_PHASES[BLOCK_PHONES[image]]
        write_metadata(scene / f"{image:04d}_METADATA_RAW_010.MAT", phase, NOISE)
    return folder


@pytest.mark.parametrize("size", ["small", "tiny"])
def test_raw_validation_gives_known_errors_by_phone(size: str, tmp_path: Path) -> None:
    clean = raw_blocks(5, 2)
    folder = write_raw_validation(tmp_path / "sidd", clean, 0.01)
    model = weights(tmp_path, "raw_denoiser", size)
    metadata = write_all_metadata(tmp_path / "metadata", 5)
    done = run("sidd-raw", folder, "--model", model, "--metadata", metadata, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    means = json.loads(done.stdout)["means"]
    assert [(mean["group"], mean["pictures"]) for mean in means] == [
        *((phone, 2) for phone in sorted(PHONE_PHASES)),
        ("all", 10),
    ]
    for mean in means:
        assert mean["mean"]["noisy_psnr"] == pytest.approx(40, abs=1e-4)
        assert mean["mean"]["psnr"] == pytest.approx(40, abs=1e-4)
    similarity = np.mean([ssim(block + 0.01, block) for block in clean.reshape(-1, 64, 64)])
    assert means[-1]["mean"]["ssim"] == pytest.approx(similarity, abs=1e-5)


def test_without_metadata_the_noise_is_estimated(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    levels = np.linspace(0.1, 0.5, 16, dtype=np.float32)
    clean = np.broadcast_to(levels[None, :, None, None], (1, 16, 128, 128))
    noisy = clean + np.sqrt(np.float32(1e-3) * clean) * rng.standard_normal(clean.shape, np.float32)
    (tmp_path / "sidd").mkdir()
    for kind, blocks in (("Gt", clean), ("Noisy", noisy)):
        name = f"Validation{kind}BlocksRaw"
        write_v5(tmp_path / "sidd" / f"{name}.mat", **{name: blocks})
    done = run("sidd-raw", tmp_path / "sidd", "--model", "tiny", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    (mean,) = json.loads(done.stdout)["means"]
    assert (
        mean["mean"]["psnr"] > mean["mean"]["noisy_psnr"] + 10
    )  # flat blocks, so all noise can go


def test_srgb_validation_is_measured(srgb: Path, tmp_path: Path) -> None:
    clean = np.random.default_rng(0).integers(0, 200, (2, 3, 16, 16, 3), np.uint8)
    for kind, blocks in (("Gt", clean), ("Noisy", clean + np.uint8(2))):
        name = f"Validation{kind}BlocksSrgb"
        write_v5(tmp_path / f"{name}.mat", **{name: blocks})
    done = run("sidd-srgb", tmp_path, "--model", srgb)
    assert (done.exit_code, done.stderr) == (0, "")
    assert re.search(r"^all +6 +42\.11 -> +42\.11 ", done.stdout, re.MULTILINE)


def test_blocks_in_another_order_than_the_list_are_noticed(tmp_path: Path) -> None:
    folder = write_raw_validation(tmp_path / "sidd", raw_blocks(5, 1)[::-1], 0.01)
    model = weights(tmp_path, "raw_denoiser")
    done = run("sidd-raw", folder, "--model", model)
    assert done.exit_code == 1
    assert re.fullmatch(
        r"cycleisp: error: .*: the blocks of image 1 do not look like GRBG; "
        r"the images may be in another order; give --metadata\n",
        done.stderr,
    )


def matlab_cell(file: h5py.File, name: str, row: int, column: int) -> npt.NDArray[np.float32]:
    """Element (row, column) of a cell array, with MATLAB's axes."""
    table = file[name]
    assert table.attrs["MATLAB_class"] == b"cell"
    content: npt.NDArray[np.float32] = file[table[column, row]][()].T
    return content


def test_the_raw_benchmark_file_is_what_the_demo_saves(tmp_path: Path) -> None:
    blocks = raw_blocks(3, 2)
    write_v5(tmp_path / "BenchmarkNoisyBlocksRaw.mat", BenchmarkNoisyBlocksRaw=blocks)
    model = weights(tmp_path, "raw_denoiser")
    metadata = write_all_metadata(tmp_path / "metadata", 3)
    arguments = ("sidd-benchmark-raw", tmp_path, "--model", model, "--metadata", metadata)
    done = run(*arguments, "-o", tmp_path)
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'SubmitRaw.mat'}\n")
    content = (tmp_path / "SubmitRaw.mat").read_bytes()
    assert content.startswith(b"MATLAB 7.3 MAT-file")
    assert content[124:128] == b"\x00\x02IM"
    assert content[512:520] == b"\x89HDF\r\n\x1a\n"
    with h5py.File(tmp_path / "SubmitRaw.mat") as file:
        assert set(file) == {"#refs#", "DenoisedBlocksRaw", "TimeMPRaw", "OptionalData"}
        assert file["DenoisedBlocksRaw"].shape == (2, 3)
        for image, block in np.ndindex(3, 2):
            cell = matlab_cell(file, "DenoisedBlocksRaw", image, block)
            assert cell.dtype == np.float32
            assert np.array_equal(cell, blocks[image, block])
        assert file["TimeMPRaw"][0, 0] > 0
        method = file["OptionalData/MethodName"]
        assert bytes(method[:, 0]).decode("utf-16-le") == "cycleisp"
    assert "already exists; --force" in run(*arguments, "-o", tmp_path).stderr
    assert run(*arguments, "-o", tmp_path, "--force").exit_code == 0


def test_the_srgb_benchmark_file_holds_codes(srgb: Path, tmp_path: Path) -> None:
    blocks = np.random.default_rng(0).integers(0, 255, (2, 2, 16, 12, 3), np.uint8)
    write_v5(tmp_path / "BenchmarkNoisyBlocksSrgb.mat", BenchmarkNoisyBlocksSrgb=blocks)
    assert run("sidd-benchmark-srgb", tmp_path, "--model", srgb, "-o", tmp_path).exit_code == 0
    with h5py.File(tmp_path / "SubmitSrgb.mat") as file:
        cell = matlab_cell(file, "DenoisedBlocksSrgb", 1, 0)
        assert np.array_equal(cell, blocks[1, 0])


BOXES = [[1, 1, 16, 32], [5, 3, 20, 34]]


@pytest.mark.parametrize("released", [False, True])
def test_raw_submissions_of_dnd_keep_every_sample_in_place(released: bool, tmp_path: Path) -> None:
    images = list(np.random.default_rng(0).random((4, 24, 40), np.float32))
    patterns = [PATTERNS[phase] for phase in Phase]
    folder = write_dnd(tmp_path / "dnd", images, patterns, BOXES, [NOISE] * 4)
    (tmp_path / "out").mkdir()
    model = weights(tmp_path, "raw_denoiser")
    options = ["--released"] if released else []
    done = run("dnd-raw", folder, "--model", model, "-o", tmp_path / "out", *options)
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [str(tmp_path / "out" / f"000{n}.mat") for n in range(1, 5)]
    for index, image in enumerate(images):
        bundle = loadmat(tmp_path / "out" / f"000{index + 1}.mat")
        assert bundle["Idenoised"].shape == (1, 2)
        assert bundle["Idenoised"][0, 0].dtype == np.float32
        assert np.array_equal(bundle["Idenoised"][0, 0], image[0:16, 0:32])
        assert np.array_equal(bundle["Idenoised"][0, 1], image[4:20, 2:34])
        assert bundle["israw"].item() == 1
        assert bundle["eval_version"].item() == "1.0"


def test_srgb_submissions_of_dnd_say_so(srgb: Path, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).random((24, 40, 3), np.float32)
    folder = write_dnd(tmp_path / "dnd", [picture], [PATTERNS[Phase.RGGB]], BOXES, [NOISE])
    assert run("dnd-srgb", folder, "--model", srgb, "-o", tmp_path).exit_code == 0
    bundle = loadmat(tmp_path / "0001.mat")
    assert np.array_equal(bundle["Idenoised"][0, 1], picture[4:20, 2:34])
    assert bundle["israw"].item() == 0


def test_an_image_that_is_damaged_leaves_only_whole_files(srgb: Path, tmp_path: Path) -> None:
    pictures = [np.zeros((24, 40, 3), np.float32)] * 2
    folder = write_dnd(tmp_path / "dnd", pictures, [PATTERNS[Phase.RGGB]] * 2, BOXES, [NOISE] * 2)
    damaged = folder / "images_srgb" / "0002.mat"
    damaged.write_bytes(damaged.read_bytes()[:700])
    out = tmp_path / "out"
    missing = run("dnd-srgb", folder, "--model", srgb, "-o", out)
    assert (missing.exit_code, missing.stderr.count("\n")) == (1, 1)
    assert f"the folder does not exist; create {out} first" in missing.stderr
    out.mkdir()
    done = run("dnd-srgb", folder, "--model", srgb, "-o", out)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "0002.mat: not a readable MATLAB v7.3 file" in done.stderr
    assert [path.name for path in out.iterdir()] == ["0001.mat"]
    assert loadmat(out / "0001.mat")["Idenoised"].shape == (1, 2)


def test_a_disk_that_gets_full_leaves_nothing_half_written(srgb: Path, tmp_path: Path) -> None:
    blocks = np.random.default_rng(0).integers(0, 255, (2, 2, 64, 64, 3), np.uint8)
    data = tmp_path / "data"
    data.mkdir()
    write_v5(data / "BenchmarkNoisyBlocksSrgb.mat", BenchmarkNoisyBlocksSrgb=blocks)
    write_dnd(data, [np.zeros((24, 40, 3), np.float32)], [PATTERNS[Phase.RGGB]], BOXES, [NOISE])
    out = tmp_path / "out"
    out.mkdir()
    for command in ("sidd-benchmark-srgb", "dnd-srgb"):
        with files_no_longer_than(10_000):
            done = run(command, data, "--model", srgb, "-o", out)
        assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert "cannot be written: file too large" in done.stderr
        assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pairs", "missing"), "missing: cannot be read"),
        (("pairs", "."), "no pair of pictures"),
        (("sidd-srgb", "."), r"ValidationNoisyBlocksSrgb\.mat: cannot be read"),
        (("dnd-srgb", ".", "-o", "."), r"info\.mat: not a readable MATLAB v7\.3 file"),
    ],
)
def test_missing_data_is_one_line(
    arguments: tuple[str, ...],
    message: str,
    srgb: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*arguments, "--model", srgb)
    assert (done.exit_code, done.stdout) == (1, "")
    assert re.search(message, done.stderr)
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [srgb]


def test_a_picture_without_its_partner_is_named(srgb: Path, tmp_path: Path) -> None:
    write_pair(tmp_path, "a", 2)
    (tmp_path / "a_clean.png").unlink()
    done = run("pairs", tmp_path, "--model", srgb)
    assert done.exit_code == 1
    assert "pictures without their partner (met a, wanted NAME_noisy.png" in done.stderr


def test_the_wrong_network_is_refused(srgb: Path, tmp_path: Path) -> None:
    raw = weights(tmp_path, "raw_denoiser")
    for command, model in (("pairs", raw), ("sidd-raw", srgb)):
        write_pair(tmp_path, "a", 2)
        done = run(command, tmp_path, "--model", model)
        assert done.exit_code == 1
        assert "the wrong network" in done.stderr


@pytest.mark.slow
def test_two_ranks_find_the_same_means(srgb: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    for name, step in (("a_1", 2), ("a_2", 4), ("b_1", 8)):
        write_pair(folder, name, step)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    script = Path(sys.executable).with_name("cycleisp")
    done = subprocess.run(
        [sys.executable, *command, script, "evaluate", "pairs", folder, "--model", srgb, "--json"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    alone = json.loads(run("pairs", folder, "--model", srgb, "--json").stdout)
    shared_out = json.loads(done.stdout)
    for report in (alone, shared_out):
        for mean in report["means"]:
            del mean["mean"]["seconds_per_mp"]
    assert shared_out == alone
