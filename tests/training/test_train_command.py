"""``cycleisp train``: what it prints where, and how it fails."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cycleisp.noise import LEVELS
from cycleisp_runtime.cli import main
from tests.training.pictures import write_photographs


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["train", "raw-denoiser", *arguments])


@pytest.fixture(name="given", scope="module")
def settings_of_a_short_run(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    photographs = write_photographs(tmp_path_factory.mktemp("data") / "photographs", 2, 64)
    return [
        f"photographs={photographs}",
        "size=tiny",
        "steps=4",
        "batch=1",
        "patch=16",
        "held_out=2",
        "validation_steps=2",
        "workers=0",
    ]


def test_the_result_is_on_stdout_and_progress_on_stderr(given: list[str], tmp_path: Path) -> None:
    done = run(*given, f"output={tmp_path / 'run'}")
    assert (done.exit_code, done.stdout) == (
        0,
        f"{tmp_path / 'run' / 'raw_denoiser.safetensors'}\n",
    )
    figures = "  ".join(rf"{each} noisy \d+\.\d\d  {each} \d+\.\d\d" for each in LEVELS)
    line = rf"raw-denoiser  step {{}}/4  {figures}  \d:\d\d:\d\d left\n"
    assert re.fullmatch("".join(line.format(step) for step in (0, 2, 4)), done.stderr)


def test_a_run_goes_on_when_told_to(given: list[str], tmp_path: Path) -> None:
    output = f"output={tmp_path / 'run'}"
    assert run(*given, output).exit_code == 0
    refused = run(*given, output)
    assert refused.exit_code != 0
    assert "already holds a run; give --resume" in refused.stderr
    resumed = run(*given, output, "steps=6", "--resume")
    assert resumed.exit_code == 0
    assert resumed.stderr.startswith("raw-denoiser  step 6/6")


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("photographs=nowhere", "nowhere: the folder of photographs cannot be read"),
        ("stepz=3", "did you mean steps?"),
        ("steps=many", "wrong type (met 'many', wanted int)"),
        ("patch=17", "patch: out of range (met 17, wanted even and at least 16)"),
        ("size=huge", "no such model"),
        ("steps=1000000000000000000000", "steps: out of range"),
        ("seed=99999999999999999999", "seed: out of range"),
        ("initial=nowhere", "not a readable safetensors file (met No such file or directory)"),
        ("threads=100000", "threads: out of range (met 100000, wanted 1 to 1024)"),
        ("workers=1000", "workers: out of range (met 1000, wanted 0 to 64)"),
    ],
)
def test_a_failure_is_one_line(
    given: list[str], tmp_path: Path, argument: str, reason: str
) -> None:
    failed = run(*given, f"output={tmp_path / 'run'}", argument)
    assert failed.exit_code in {1, 2}
    assert failed.stdout == ""
    assert failed.stderr.startswith("cycleisp: error: ")
    assert reason in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_recipe_is_read(given: list[str], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "\n".join(each.replace("=", ": ", 1) for each in [*given, f"output={tmp_path / 'run'}"]),
        encoding="utf-8",
    )
    assert run("--recipe", str(recipe)).exit_code == 0
