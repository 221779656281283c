"""The first bytes decide what LibRaw may see, and where names stand outside TIFF."""

from __future__ import annotations

import numpy as np
import pytest

from cycleisp_runtime.errors import InputError
from cycleisp_runtime.frame import Camera
from cycleisp_runtime.readers.containers import Container, embedded_tiff, identify
from cycleisp_runtime.readers.metadata import read_camera
from tests.runtime.dng_builder import a_dng


@pytest.mark.parametrize(
    ("head", "container"),
    [
        (b"II*\0\x08\0\0\0", Container.TIFF),
        (b"MM\0*\0\0\0\x08", Container.TIFF),
        (b"IIRO\x08\0\0\0", Container.TIFF),
        (b"IIU\0\x18\0\0\0", Container.TIFF),
        (b"FUJIFILMCCD-RAW 0201", Container.RAF),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", Container.CR3),
        (b"II\x1a\0\0\0HEAPCCDR", Container.CRW),
        (b"\0MRM\0\0\n\x0c", Container.MRW),
    ],
)
def test_raw_containers(head: bytes, container: Container) -> None:
    assert identify(head + bytes(64)) is container


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"FOVb\0\0\2\0", "Foveon"),
        (b"\xff\xd8\xff\xe1", "JPEG"),
        (b"\0\0\0\x18ftypheic", "HEIF"),
        (b"PK\3\4", "ZIP"),
        (b"I", "no known RAW format"),
        (b"", "no known RAW format"),
        (bytes(64), "headerless sensor dump"),
    ],
)
def test_everything_else_is_refused_by_its_name(head: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        identify(head)


TIFF = a_dng(np.full((4, 4), 700, np.uint16))
RAF = b"FUJIFILMCCD-RAW ".ljust(84, b"\0") + (100).to_bytes(4, "big")
RAF = RAF.ljust(100, b"\0") + b"\xff\xd8\xff\xe1\0\0Exif\0\0" + TIFF


@pytest.mark.parametrize(
    ("data", "container", "camera"),
    [
        (RAF, Container.RAF, Camera("Acme", "Acme One")),
        (b"\0\0\0\x18ftypcrx moov" + b"CMT1" + TIFF, Container.CR3, Camera("Acme", "Acme One")),
        (b"\0MRM" + b"\0TTW\0\0\1\0" + TIFF, Container.MRW, Camera("Acme", "Acme One")),
        (RAF[:120], Container.RAF, None),
        (RAF[:50], Container.RAF, None),
        (b"\0\0\0\x18ftypcrx moov", Container.CR3, None),
        (b"II\x1a\0\0\0HEAPCCDR" + TIFF, Container.CRW, None),
    ],
)
def test_names_inside_other_containers(
    data: bytes, container: Container, camera: Camera | None
) -> None:
    tiff = embedded_tiff(data, container)
    assert (None if tiff is None else read_camera(tiff)) == camera
