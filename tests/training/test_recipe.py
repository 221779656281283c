"""``cycleisp train all``: stages in order, each from the networks of those before it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from cycleisp.training.loop import Progress
from cycleisp.training.recipe import STAGES, resolve_stages, train_stages
from cycleisp.training.srgb_denoiser import SrgbDenoiserSettings
from cycleisp_runtime.cli import main
from cycleisp_runtime.errors import SettingsError
from tests.training.pictures import write_photographs
from tests.training.short_runs import log, short_run

STAGES_OF_A_RECIPE: dict[str, dict[str, object] | None] = {
    "rgb2raw": {"steps": 3, "cameras": "one"},
    "raw2rgb": None,
    "joint": {"steps": 1},
    "raw-denoiser": {"size": "tiny"},
    "srgb-denoiser": {"patch": 32},
}


@pytest.fixture(name="recipe")
def a_recipe(tmp_path: Path) -> Path:
    photographs = write_photographs(tmp_path / "photographs", 4, 72)
    common = short_run(photographs, tmp_path / "runs", steps=2, batch=1, size="small")
    return write(tmp_path, {**common, "stages": STAGES_OF_A_RECIPE})


def write(folder: Path, content: object) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def run(recipe: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["train", "all", "--recipe", str(recipe), *arguments])


ALONE = {"rgb2raw": "rgb2raw", "color_branch": "raw2rgb", "raw2rgb": "raw2rgb"}
"""Networks of the pipeline, and the stages that train them first."""


def taken_from(folder: Path) -> dict[str, Path]:
    """The runs that the networks come from which a run starts with."""
    settings = yaml.safe_load((folder / "settings.yaml").read_text("utf-8"))
    files = {name: Path(settings[name]) for name in ALONE}
    assert {file.stem for file in files.values()} == set(ALONE)
    return {name: file.parent for name, file in files.items()}


def test_stages_run_in_order_and_hand_their_networks_over(recipe: Path, tmp_path: Path) -> None:
    done = run(recipe)
    assert done.exit_code == 0, done.stderr
    runs = tmp_path / "runs"
    files = [
        runs / "rgb2raw" / "rgb2raw.safetensors",
        *(runs / "raw2rgb" / f"{name}.safetensors" for name in ("color_branch", "raw2rgb")),
        *(runs / "joint" / f"{name}.safetensors" for name in ALONE),
        runs / "raw-denoiser" / "raw_denoiser.safetensors",
        runs / "srgb-denoiser" / "srgb_denoiser.safetensors",
    ]
    assert done.stdout.splitlines() == [str(path) for path in files]
    assert all(path.is_file() for path in files)
    told = [line.split()[0] for line in done.stderr.splitlines()]
    assert list(dict.fromkeys(told)) == list(STAGES_OF_A_RECIPE)
    # A stage starts from the latest networks, and so as good as they are.
    assert taken_from(runs / "joint") == {name: runs / stage for name, stage in ALONE.items()}
    assert taken_from(runs / "srgb-denoiser") == dict.fromkeys(ALONE, runs / "joint")
    assert log(runs / "joint")[0]["RAW after gains"] == pytest.approx(
        log(runs / "rgb2raw")[-1]["RAW after gains"], abs=1.0
    )

    kept = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    again = run(recipe, "--resume")
    assert (again.exit_code, again.stdout, again.stderr) == (0, done.stdout, "")
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == kept

    refused = run(recipe)
    assert refused.exit_code == 1
    assert refused.stderr == (
        f"cycleisp: error: {runs / 'rgb2raw'}: the folder already holds a run; give --resume\n"
    )


def stopped_in_the_second(stage: str) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if (stage, progress.step) == ("raw2rgb", 1):
            raise KeyboardInterrupt

    return report


def test_a_recipe_that_was_stopped_goes_on(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        list(train_stages(recipe, [], resume=False, report=stopped_in_the_second))
    assert not (tmp_path / "runs" / "raw2rgb" / "raw2rgb.safetensors").exists()
    assert run(recipe, "--resume").exit_code == 0
    assert (tmp_path / "runs" / "srgb-denoiser" / "srgb_denoiser.safetensors").exists()


def steps(recipe: Path, *overrides: str) -> list[int]:
    return [settings.steps for _, settings in resolve_stages(recipe, overrides)]


def test_the_nearest_setting_wins(recipe: Path) -> None:
    assert steps(recipe) == [3, 2, 1, 2, 2]
    assert steps(recipe, "joint.steps=9") == [3, 2, 9, 2, 2]
    assert steps(recipe, "steps=7") == [7, 7, 7, 7, 7]
    assert steps(recipe, "steps=7", "joint.steps=9") == [7, 7, 9, 7, 7]
    assert steps(recipe, "joint.steps=9", "steps=7") == [7, 7, 9, 7, 7]


def test_a_setting_is_for_the_stages_that_know_it(recipe: Path) -> None:
    resolved = dict(resolve_stages(recipe, ["target=blurred", "pattern=*.png"]))
    srgb = resolved["srgb-denoiser"]
    assert isinstance(srgb, SrgbDenoiserSettings)
    assert (srgb.target, srgb.pattern) == ("blurred", "*.png")


def test_the_folder_of_all_can_be_given(recipe: Path, tmp_path: Path) -> None:
    for name, settings in resolve_stages(recipe, [f"output={tmp_path / 'other'}"]):
        assert settings.output == tmp_path / "other" / name


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("stepz=3", r"stepz: unknown setting; did you mean steps\?"),
        ("joint.stepz=3", r"stepz: unknown setting; did you mean steps\?"),
        ("srgb-denoiser.target=sharp", "target: out of range"),
        ("raw-denoiser.target=blurred", "target: unknown setting"),
        ("sidd.steps=3", r"no such stage \(met sidd, wanted one of: rgb2raw, raw2rgb, joint"),
        ("steps", "an override is KEY=VALUE"),
        ("srgb-denoiser.steps=many", r"steps: wrong type \(met 'many', wanted int\)"),
    ],
)
def test_what_is_wrong_in_any_stage_is_refused_before_the_first_runs(
    recipe: Path, tmp_path: Path, override: str, problem: str
) -> None:
    with pytest.raises(SettingsError, match=problem):
        resolve_stages(recipe, [override])
    refused = run(recipe, override)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"steps": 3}, "the recipe names no stages"),
        ({"stages": ["rgb2raw"]}, "the recipe names no stages"),
        ({"stages": {"rgb2rav": None}}, r"no such stage \(met rgb2rav, wanted one of: rgb2raw"),
        ({"stages": {"rgb2raw": 3}}, r"the settings of a stage are a mapping \(met 3"),
        ({"stages": {"rgb2raw": None}}, r"without a value \(met output\)"),
        ({"stages": {"rgb2raw": {"stepz": 3}}, "output": "o"}, r"did you mean steps\?"),
        ({"stages": {"rgb2raw": None}, "stepz": 3, "output": "o"}, r"did you mean steps\?"),
        ({"stages": {"joint": None}, "output": "o"}, r"met rgb2raw, color_branch, raw2rgb"),
    ],
)
def test_a_recipe_that_cannot_be_run_is_refused(
    tmp_path: Path, content: object, problem: str
) -> None:
    with pytest.raises(SettingsError, match=problem):
        resolve_stages(write(tmp_path, content), [])


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_a_command_that_lists_its_settings(stage: str) -> None:
    listed = CliRunner().invoke(main, ["train", stage, "--settings"])
    assert listed.exit_code == 0
    assert {line.partition(":")[0] for line in listed.stdout.splitlines()} == STAGES[stage].keys
    assert "output: needed" in listed.stdout
