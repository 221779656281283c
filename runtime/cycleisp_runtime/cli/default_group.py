"""A command that has commands below it: what its first word does not name goes to itself."""

from __future__ import annotations

from typing import Any

import click

__all__ = ["DefaultGroup"]


class DefaultGroup(click.Group):
    """``cycleisp NAME WORD ...`` is the command WORD where there is one, else the default command.

    Help, usage and parsing of everything else are the default command's own, so its docstring is
    the place to tell of the others.

    Args:
        default: the command that gives the group its name and help.
        others: the commands that have names of their own.
    """

    def __init__(self, default: click.Command, *others: click.Command) -> None:
        super().__init__(default.name, commands=others, help=default.help)
        self._default = default

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """The command of this name, else the default one."""
        return super().get_command(ctx, cmd_name) or self._default

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401  click's signature
    ) -> click.Context:
        """A context whose command is the group itself only where the first word names another."""
        if args and args[0] in self.commands:
            return super().make_context(info_name, args, parent, **extra)
        return self._default.make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> object:
        """Run what the context was made for."""
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)
