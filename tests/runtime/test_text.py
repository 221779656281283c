"""Text that is safe to show."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.text import printable


def test_control_characters_and_stray_bytes_are_escaped() -> None:
    assert printable("D750\x1b[31m\n") == "D750\\x1b[31m\\n"
    assert printable(b"caf\xe9".decode(errors="surrogateescape")) == "caf\\udce9"
    assert printable("café 写真.dng") == "café 写真.dng"


@given(st.text(st.characters(exclude_categories=())))
def test_everything_becomes_one_line_of_unicode(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown
