"""A small calibration set of photographs that ship with the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from cycleisp_calibration.sets import BuiltSet, build_calibration_set
from cycleisp_calibration.survey import SetSettings
from tests.helpers import ROOT

PHOTOGRAPHS = tuple(sorted((ROOT / "examples" / "photographs").glob("*.jpg")))


@pytest.fixture(scope="session")
def photographs() -> tuple[Path, ...]:
    return PHOTOGRAPHS


@pytest.fixture(scope="session")
def raw_set() -> BuiltSet:
    return build_calibration_set(PHOTOGRAPHS[:8], SetSettings(tiles=40, side=128))
