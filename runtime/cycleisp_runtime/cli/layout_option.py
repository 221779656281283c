"""The option ``--layout TEXT``, the same in every command that has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cycleisp_runtime.errors import CycleISPError

if TYPE_CHECKING:
    from cycleisp_runtime.readers import DumpLayout

__all__ = ["dump_layout"]


def dump_layout(
    _ctx: click.Context, _param: click.Parameter, value: str | None
) -> DumpLayout | None:
    """The layout of a dump, as ``DumpLayout.parse`` reads it: a callback of click."""
    if value is None:
        return None
    from cycleisp_runtime.readers import DumpLayout

    try:
        return DumpLayout.parse(value)
    except CycleISPError as error:
        raise click.BadParameter(error.reason) from error
