"""Text from files and file names, made safe to show."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: object) -> str:
    """One line of valid Unicode: control characters and undecodable bytes as escapes.

    A camera's name may hold commands for the terminal, and a file's name any bytes.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(text)
    )
