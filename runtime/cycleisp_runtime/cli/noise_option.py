"""The option ``--noise SHOT,READ``, the same in every command that has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cycleisp_runtime.errors import CycleISPError

if TYPE_CHECKING:
    from cycleisp_runtime.noise import NoiseModel

__all__ = ["noise_model"]


def noise_model(
    _ctx: click.Context, _param: click.Parameter, value: str | None
) -> NoiseModel | None:
    """SHOT,READ as a NoiseModel: a callback of click."""
    if value is None:
        return None
    from cycleisp_runtime.noise import NoiseModel

    try:
        return NoiseModel.parse(value)
    except CycleISPError as error:
        raise click.BadParameter(error.reason) from error
