"""The engine cache: a folder of the user that nobody else can have put an engine into.

Every engine has a signed manifest beside it, with its hash and its key. An engine is given out only
where folder, owner, signature, hash and key are what they must be; whatever is not is refused, with
the reason, before anything deserialises it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from cycleisp_runtime.engines.gpu import Gpu
from cycleisp_runtime.engines.key import EngineKey
from cycleisp_runtime.engines.layers import Layer
from cycleisp_runtime.engines.private import (
    read_private,
    read_signed,
    user_folder,
    write_private,
    write_signed,
)
from cycleisp_runtime.errors import BackendError

__all__ = ["ENGINE_SUFFIX", "Engine", "EngineCache", "Manifest"]

ENGINE_SUFFIX = ".engine"
MAX_MANIFEST_BYTES = 1 << 24
MAX_ENGINE_BYTES = 1 << 30
MAX_TIMING_BYTES = 1 << 28

_REBUILD = "build it again"


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of an engine.

    Attributes:
        format: version of this schema.
        model: name of the bundle.
        key: everything that it depends on.
        sha256: of the engine.
        bytes: of the engine.
        activation_bytes: memory on the device for the largest tile; None where not known.
        seconds: that building it took.
        layers: what TensorRT made of the network; empty where it did not say.
    """

    format: Literal["cycleisp-engine/1"]
    model: str
    key: EngineKey
    sha256: str
    bytes: int
    activation_bytes: int | None
    seconds: float
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Engine:
    """An engine that may be deserialised.

    Attributes:
        path: where it stands.
        manifest: what is known of it.
        content: the bytes that were checked; the file is not to be read again.
    """

    path: Path
    manifest: Manifest
    content: bytes


class EngineCache:
    """The engines of this user, in ``cycleisp/engines`` of the user's cache folder."""

    def __init__(self) -> None:
        self.folder = user_folder("XDG_CACHE_HOME", ".cache") / "engines"

    def load(self, key: EngineKey) -> Engine | None:
        """The engine of this key; None where there is none.

        Raises:
            BackendError: where there is one that must not be used; it says why.
        """
        engine = self._open(self._path(key))
        if engine is None:
            return None
        for name, met, wanted in engine.manifest.key.differences(key):
            raise BackendError(
                f"the engine was built for another {name}",
                subject=engine.path,
                met=met,
                wanted=wanted,
                hint=_REBUILD,
            )
        return engine

    def open(self, path: Path) -> Engine:
        """The engine at this path of the cache, whatever its key.

        Raises:
            BackendError: where it is not in the cache or must not be used.
        """
        engine = self._open(path) if path.absolute().parent == self.folder else None
        if engine is None:
            raise BackendError(
                "no engine of the cache", subject=path, wanted=f"a file in {self.folder}"
            )
        return engine

    def store(self, manifest: Manifest, content: bytes) -> Engine:
        """The engine, now in the cache under its key.

        Raises:
            BackendError: where the cache is not private.
            OutputError: where the system refuses to write.
        """
        path = self._path(manifest.key)
        write_private(path, content)
        write_signed(path.with_suffix(".manifest"), msgspec.json.encode(manifest))
        return Engine(path, manifest, content)

    def load_timings(self, package: str, version: str, gpu: Gpu | None) -> bytes:
        """What earlier builds by this TensorRT on this GPU measured; empty where nothing.

        Raises:
            BackendError: where it must not be used.
        """
        path = self._timings_path(package, version, gpu)
        return read_signed(path, MAX_TIMING_BYTES) or b""

    def store_timings(self, package: str, version: str, gpu: Gpu | None, timings: bytes) -> None:
        """Keep what was measured for the next build.

        Raises:
            BackendError: where the cache is not private.
            OutputError: where the system refuses to write.
        """
        write_signed(self._timings_path(package, version, gpu), timings)

    def _path(self, key: EngineKey) -> Path:
        return self.folder / f"{key.digest}{ENGINE_SUFFIX}"

    def _timings_path(self, package: str, version: str, gpu: Gpu | None) -> Path:
        digest = hashlib.sha256(msgspec.json.encode((package, version, gpu))).hexdigest()
        return self.folder / f"{digest}.timings"

    def _open(self, path: Path) -> Engine | None:
        encoded = read_signed(path.with_suffix(".manifest"), MAX_MANIFEST_BYTES)
        content = read_private(path, MAX_ENGINE_BYTES)
        if content is None:
            return None
        if encoded is None:
            raise BackendError("the engine has no manifest", subject=path, hint=_REBUILD)
        try:
            manifest = msgspec.json.decode(encoded, type=Manifest)
        except msgspec.DecodeError as error:
            raise BackendError(
                f"the engine was built by another version of cycleisp: {error}",
                subject=path,
                hint=_REBUILD,
            ) from error
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 != manifest.sha256:
            raise BackendError(
                "the engine is not the one that was built",
                subject=path,
                met=f"{len(content)} bytes, sha256 {sha256[:12]}",
                wanted=f"{manifest.bytes} bytes, sha256 {manifest.sha256[:12]}",
                hint=_REBUILD,
            )
        return Engine(path, manifest, content)
