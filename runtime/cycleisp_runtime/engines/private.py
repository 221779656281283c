"""Files that only their owner can have written.

Engines are native code and timing caches are parsed by native code, so both must come from this
user on this machine: folders and files belong to the user, nobody else may write them, links are
not followed, and what must be authentic carries a code (HMAC, RFC 2104) under a secret that is kept
outside the cache. Whoever packed a cache elsewhere did not know the secret.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from cycleisp_runtime.errors import BackendError
from cycleisp_runtime.writers.atomic import atomic_output

__all__ = [
    "make_private_folder",
    "read_private",
    "read_signed",
    "user_folder",
    "write_private",
    "write_signed",
]

SECRET_BYTES = 32
_CODE_BYTES = 64
"""SHA-256 in hexadecimal digits."""
_HINT = "remove it"


def user_folder(variable: str, default: str) -> Path:
    """Our folder under the one that this variable of the XDG Base Directory Specification names."""
    named = os.environ.get(variable, "")
    return (Path(named) if Path(named).is_absolute() else Path.home() / default) / "cycleisp"


def make_private_folder(path: Path) -> None:
    """Make the folder for its owner alone, or find that it is one.

    Raises:
        BackendError: where it is a link, another user's, or others may write to it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        facts = path.lstat()
    except OSError as error:
        raise BackendError("the folder cannot be used", subject=path, met=error.strerror) from error
    if not stat.S_ISDIR(facts.st_mode):
        raise BackendError("not a folder but a link", subject=path, hint=_HINT)
    _check_owner(path, facts)


def read_private(path: Path, limit: int) -> bytes | None:
    """The content of a private file; None where there is no such file.

    Raises:
        BackendError: where it is a link or no plain file, another user's, writable by others, or
            larger than ``limit`` bytes.
    """
    make_private_folder(path.parent)
    try:
        with open(path, "rb", opener=_open_plainly) as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise BackendError("not a plain file", subject=path, hint=_HINT)
            _check_owner(path, facts)
            if facts.st_size > limit:
                raise BackendError(
                    "the file is too large",
                    subject=path,
                    met=f"{facts.st_size} bytes",
                    wanted=f"at most {limit}",
                    hint=_HINT,
                )
            return file.read(limit)
    except FileNotFoundError:
        return None
    except OSError as error:
        problem = "a link, which is not followed" if path.is_symlink() else "cannot be read"
        raise BackendError(problem, subject=path, met=error.strerror, hint=_HINT) from error


def write_private(path: Path, content: bytes) -> None:
    """Write the file for its owner alone, whole or not at all.

    Raises:
        BackendError: where its folder is not private.
        OutputError: where the system refuses to write.
    """
    make_private_folder(path.parent)
    with atomic_output(path, source=None, force=True) as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(content)


def read_signed(path: Path, limit: int) -> bytes | None:
    """What ``write_signed`` wrote; None where there is no such file.

    Raises:
        BackendError: as ``read_private``, or where it was not signed with this user's secret.
    """
    signed = read_private(path, limit)
    if signed is None:
        return None
    code, content = signed[:_CODE_BYTES], signed[_CODE_BYTES:]
    if not hmac.compare_digest(code, _code(content)):
        raise BackendError(
            "altered, or not written by this user on this machine", subject=path, hint=_HINT
        )
    return content


def write_signed(path: Path, content: bytes) -> None:
    """Write the file with its code before the content.

    Raises:
        BackendError: where its folder is not private.
        OutputError: where the system refuses to write.
    """
    write_private(path, _code(content) + content)


def _open_plainly(path: str, flags: int) -> int:
    """A descriptor without following a link, nor waiting for whoever holds a pipe's other end."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _code(content: bytes) -> bytes:
    path = user_folder("XDG_STATE_HOME", ".local/state") / "engines.secret"
    secret = read_private(path, SECRET_BYTES)
    if secret is None:
        write_private(path, secrets.token_bytes(SECRET_BYTES))
        # Another process may have been faster; both go on with what stands there now.
        secret = read_private(path, SECRET_BYTES)
    if secret is None or len(secret) != SECRET_BYTES:
        raise BackendError("the secret is damaged", subject=path, hint=_HINT)
    return hmac.new(secret, content, hashlib.sha256).hexdigest().encode()


def _check_owner(path: Path, facts: os.stat_result) -> None:
    if facts.st_uid != os.geteuid():
        raise BackendError(
            "it belongs to another user",
            subject=path,
            met=f"uid {facts.st_uid}",
            wanted=f"uid {os.geteuid()}",
            hint=_HINT,
        )
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise BackendError(
            "others may write to it",
            subject=path,
            met=f"mode {stat.S_IMODE(facts.st_mode):04o}",
            hint="remove it, or take that right away if you trust the content",
        )
