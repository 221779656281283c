"""What an installation holds and pulls in."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.checkout import ROOT, package_folders, setup_cfg, tracked_files

WHEEL_LIMIT_BYTES = 8_000_000
SUPPORTED = ("3.10", "3.11", "3.12", "3.13", "3.14")


def test_every_package_on_disk_is_listed() -> None:
    on_disk = set()
    for name, folder in package_folders().items():
        for path in tracked_files():
            if path.suffix == ".py" and folder in path.parents:
                on_disk.add(".".join((name, *path.parent.relative_to(folder).parts)))
    assert setup_cfg()["options"]["packages"].split() == sorted(on_disk)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the tracked files, built away from the checkout and whatever lies in it."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for path in tracked_files():
        if path.parts[0] not in {"tests", "examples"}:
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, source / path)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*build, "--quiet", "--disable-pip-version-check", "--wheel-dir", built, source], check=True
    )
    (path,) = built.glob("*.whl")
    return path


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    version = setup_cfg()["metadata"]["version"]
    expected = {
        f"cycleisp-{version}.dist-info/{name}"
        for name in (
            "METADATA",
            "RECORD",
            "WHEEL",
            "entry_points.txt",
            "licenses/LICENSE",
            "licenses/NOTICE",
            "top_level.txt",
        )
    }
    for name, folder in package_folders().items():
        expected |= {
            f"{name}/{path.relative_to(folder).as_posix()}"
            for path in tracked_files()
            if folder in path.parents
        }
    assert set(zipfile.ZipFile(wheel).namelist()) == expected


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size <= WHEEL_LIMIT_BYTES


def pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split("\n")
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def is_exact(requirement: Requirement) -> bool:
    return any(
        each.operator == "==" and not each.version.endswith("*") for each in requirement.specifier
    )


def needs(requirement: Requirement) -> list[Requirement]:
    """What it pulls in, but for what it pins itself, as torch does its CUDA libraries."""
    if requirement.name == "cycleisp":
        base, optional = setup_cfg()["options"], setup_cfg()["options.extras_require"]
        lists = [base["install_requires"], *(optional[extra] for extra in requirement.extras)]
        return [Requirement(line) for text in lists for line in text.split("\n") if line]
    listed = map(Requirement, importlib.metadata.requires(requirement.name) or [])
    extras = requirement.extras or {""}
    return [
        each
        for each in listed
        if (each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras))
        and not is_exact(each)
    ]


def required(requirements: list[Requirement]) -> set[str]:
    """Names of everything that pip installs for these requirements on this interpreter."""
    known: set[tuple[str, frozenset[str]]] = set()
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key not in known:
            known.add(key)
            waiting += needs(requirement)
    return {name for name, _ in known} - {"cycleisp"}


def test_everything_that_make_test_installs_is_pinned() -> None:
    pinned = {
        canonicalize_name(pin.name) for pin in pins() if pin.marker is None or pin.marker.evaluate()
    }
    installed = required(
        [Requirement("cycleisp[train,export,bench,test]"), Requirement("setuptools")]
    )
    assert installed - pinned == set()


@pytest.mark.parametrize("python", SUPPORTED)
def test_no_package_has_two_pins(python: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    names = Counter(
        canonicalize_name(pin.name)
        for pin in pins()
        if pin.marker is None or pin.marker.evaluate(environment)
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_pins_are_exact() -> None:
    assert [str(pin) for pin in pins() if not is_exact(pin)] == []


def test_the_base_installation_is_light() -> None:
    heavy = {"torch", "onnx", "matplotlib", "scipy"}
    assert required([Requirement("cycleisp")]) & heavy == set()
