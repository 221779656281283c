"""The names that ``cycleisp_runtime`` promises."""

from __future__ import annotations

import pytest

import cycleisp_runtime


def test_names_are_sorted_and_listed() -> None:
    assert cycleisp_runtime.__all__ == sorted(cycleisp_runtime.__all__)
    assert dir(cycleisp_runtime) == cycleisp_runtime.__all__


@pytest.mark.parametrize("name", cycleisp_runtime.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(cycleisp_runtime, name).__name__ == name


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Denoizer'"):
        _ = cycleisp_runtime.Denoizer  # type: ignore[attr-defined]
