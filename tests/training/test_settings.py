"""Settings: where they come from, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp.training.raw_denoiser import RawDenoiserSettings
from cycleisp.training.recipe import STAGES, resolve_stages
from cycleisp.training.settings import (
    check_ranges,
    read_recipe,
    resolve_settings,
    settings_as_yaml,
)
from cycleisp_runtime.errors import SettingsError
from tests.helpers import ROOT


@dataclass(frozen=True)
class Walk:
    """Settings of every type that a stage may have."""

    folder: Path
    steps: int = 10
    rate: float = 0.5
    name: str = "slow"
    bright: bool = False
    guide: Path | None = None


@pytest.fixture(name="recipe")
def a_recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text("folder: woods\nsteps: 20\nname: quick\n", encoding="utf-8")
    return path


def test_overrides_win_over_the_recipe_and_that_over_defaults(recipe: Path) -> None:
    resolved = resolve_settings(Walk, read_recipe(recipe), ["steps=30", "bright=true"])
    assert resolved == Walk(Path("woods"), steps=30, rate=0.5, name="quick", bright=True)


def test_the_last_override_wins() -> None:
    assert resolve_settings(Walk, {}, ["folder=a", "steps=1", "steps=2"]).steps == 2


@pytest.mark.parametrize(
    ("text", "value"), [("2e-3", 2e-3), ("1", 1.0), ("0.25", 0.25), ("1E5", 1e5), ("-3.5e+2", -350)]
)
def test_numbers_are_read_as_people_write_them(text: str, value: float) -> None:
    rate = resolve_settings(Walk, {}, ["folder=a", f"rate={text}"]).rate
    assert rate == value
    assert isinstance(rate, float)


@pytest.mark.parametrize("text", ["*.png", "3", "a: b", "[x", "no", "2024-01-01"])
def test_text_stands_for_itself(text: str) -> None:
    walk = resolve_settings(Walk, {}, [f"folder={text}", f"name={text}"])
    assert (walk.folder, walk.name) == (Path(text), text)


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"stepz: unknown setting; did you mean steps\?"):
        resolve_settings(Walk, {}, ["folder=a", "stepz=3"])


def test_an_outlandish_key_lists_all() -> None:
    with pytest.raises(SettingsError, match="known: bright, folder, guide, name, rate, steps"):
        resolve_settings(Walk, {}, ["folder=a", "qqqqqq=3"])


@pytest.mark.parametrize(
    ("override", "met"),
    [
        ("steps=true", "True"),
        ("steps=1.5", "1.5"),
        ("steps=many", "'many'"),
        ("steps=", "None"),
        ("bright=1", "1"),
        ("rate=false", "False"),
        ("rate=fast", "fast"),
    ],
)
def test_a_value_of_another_type_is_refused(override: str, met: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        resolve_settings(Walk, {}, ["folder=a", override])
    assert refusal.value.subject == override.partition("=")[0]
    assert str(refusal.value.met) == met


def test_missing_settings_are_named() -> None:
    with pytest.raises(SettingsError, match=r"without a value \(met folder\).*folder=VALUE"):
        resolve_settings(Walk, {}, ["steps=3"])


@pytest.mark.parametrize("text", ["- a\n- b\n", "", "folder", "a: [", "\0", "a: b: c\n"])
def test_a_recipe_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=r"recipe.yaml: the recipe is not"):
        read_recipe(recipe)


def test_a_recipe_in_another_encoding_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(b"folder: \xff\xfe\n")
    with pytest.raises(SettingsError, match="the recipe is not YAML"):
        read_recipe(recipe)


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"recipe cannot be read .*No such file"):
        read_recipe(tmp_path / "absent.yaml")


@pytest.mark.parametrize("override", ["steps", "steps=[", "steps: 3", "=3"])
def test_an_override_that_is_none_is_refused(override: str) -> None:
    with pytest.raises(SettingsError):
        resolve_settings(Walk, {}, ["folder=a", override])


@given(
    st.builds(
        Walk,
        folder=st.text("abc /'é#:", min_size=1).map(lambda text: Path("base", text)),
        steps=st.integers(),
        rate=st.floats(allow_nan=False),
        name=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
        bright=st.booleans(),
        guide=st.none() | st.just(Path("a guide")),
    )
)
def test_settings_come_back_from_their_own_yaml(tmp_path_factory: object, walk: Walk) -> None:
    assert isinstance(tmp_path_factory, pytest.TempPathFactory)
    recipe = tmp_path_factory.getbasetemp() / "written.yaml"
    recipe.write_text(settings_as_yaml(walk), encoding="utf-8")
    assert resolve_settings(Walk, read_recipe(recipe), []) == walk


def test_settings_can_be_left_out() -> None:
    assert settings_as_yaml(Walk(Path("a b" * 50)), without=("folder", "rate")) == (
        "steps: 10\nname: slow\nbright: false\nguide: null\n"
    )


@pytest.mark.parametrize(
    "recipe", sorted((ROOT / "zoo").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_recipe_of_the_zoo_is_valid(recipe: Path) -> None:
    given = read_recipe(recipe)
    if "stages" in given:
        assert [name for name, _ in resolve_stages(recipe, [])] == list(given["stages"])
    else:
        resolved = resolve_settings(RawDenoiserSettings, given, ["photographs=p", "output=o"])
        assert resolved.size == recipe.stem


@pytest.mark.parametrize("size", ["tiny", "edge"])
def test_the_settings_of_a_shipped_model_are_still_valid(size: str) -> None:
    recorded = read_recipe(ROOT / "zoo" / "runs" / size / "settings.yaml")
    assert resolve_settings(RawDenoiserSettings, recorded, []).size == size


@pytest.mark.parametrize("stage", sorted((ROOT / "zoo" / "runs" / "small").glob("*/settings.yaml")))
def test_the_settings_of_every_stage_of_the_pipeline_are_still_valid(stage: Path) -> None:
    kind = STAGES[stage.parent.name].settings
    assert resolve_settings(kind, read_recipe(stage), []).size == "small"


@dataclass(frozen=True, kw_only=True)
class Climb:
    """Settings that check their ranges."""

    height: int = 3
    slope: float = 0.5

    def __post_init__(self) -> None:
        check_ranges(
            self,
            {
                "height": (self.height >= 1, "at least 1"),
                "slope": (0 <= self.slope <= 1, "0 to 1"),
            },
        )


def test_what_is_out_of_range_is_named() -> None:
    assert resolve_settings(Climb, {}, ["height=1", "slope=1"]) == Climb(height=1, slope=1.0)
    with pytest.raises(SettingsError, match=r"height: out of range \(met 0, wanted at least 1\)"):
        resolve_settings(Climb, {}, ["height=0"])
    with pytest.raises(SettingsError, match=r"slope: out of range \(met nan, wanted 0 to 1\)"):
        resolve_settings(Climb, {}, ["slope=nan"])
