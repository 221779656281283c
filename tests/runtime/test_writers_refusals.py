"""What the writers refuse, and that nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from cycleisp_runtime.dng import Tag
from cycleisp_runtime.errors import InputError, OutputError, SettingsError
from cycleisp_runtime.writers import write_frame
from cycleisp_runtime.writers.ifd import Field, Kind, directory_bytes
from tests.runtime.dng_builder import BYTE, SHORT, Item, an_opcode_list
from tests.runtime.rewriting import SAMPLES, SOURCE, built, frame_of, rewritten

TABLE = Item(Tag.LinearizationTable, SHORT, range(0, 65536, 16))


def opcode_list(number: int) -> Item:
    return Item(Tag.OpcodeList1, BYTE, an_opcode_list((5, bytes(8)), (number, bytes(8))))


@pytest.mark.parametrize("number", [4, 7, 8, 10, 11, 99])
def test_scaled_levels_are_refused_where_opcodes_know_stored_values(
    tmp_path: Path, number: int
) -> None:
    frame = built(tmp_path, SAMPLES, mosaic=[opcode_list(number)])
    with pytest.raises(OutputError, match=rf"opcode {number} in OpcodeList1.*--keep-levels"):
        rewritten(frame, tmp_path, scale=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == [SOURCE]
    rewritten(frame, tmp_path)


@pytest.mark.parametrize("number", [1, 2, 3, 5, 6, 9, 12, 13, 14])
def test_scaled_levels_pass_where_opcodes_move_samples_or_multiply_them(
    tmp_path: Path, number: int
) -> None:
    frame = built(tmp_path, SAMPLES, mosaic=[opcode_list(number)])
    rewritten(frame, tmp_path, scale=4)


@pytest.mark.parametrize("number", [3, 4, 7, 8, 9, 10, 11, 12, 13])
def test_a_table_cannot_go_where_opcodes_work_on_its_codes(tmp_path: Path, number: int) -> None:
    frame = built(tmp_path, SAMPLES, mosaic=[opcode_list(number), TABLE])
    with pytest.raises(OutputError, match=f"opcode {number} in OpcodeList1"):
        rewritten(frame, tmp_path)


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_cut_opcode_list_is_refused(tmp_path: Path, cut: int) -> None:
    stored = an_opcode_list((5, bytes(8)))[:-cut]
    frame = built(tmp_path, SAMPLES, mosaic=[Item(Tag.OpcodeList1, BYTE, stored)])
    with pytest.raises(InputError, match=r"in\.dng: OpcodeList1 ends early"):
        rewritten(frame, tmp_path, scale=4)


def test_an_enhanced_image_beside_the_mosaic_is_refused(tmp_path: Path) -> None:
    frame = built(tmp_path, SAMPLES, image_types=[16])
    with pytest.raises(OutputError, match="enhanced image"):
        rewritten(frame, tmp_path, noise_reduction=1.0)
    rewritten(frame, tmp_path)


def test_samples_of_another_size_are_refused(tmp_path: Path) -> None:
    built(tmp_path, SAMPLES)
    with pytest.raises(InputError, match=r"met 0 of 64x46, wanted one"):
        rewritten(frame_of(SAMPLES[:46].copy(), tmp_path / SOURCE), tmp_path)


@pytest.mark.parametrize("content", [None, b""])
def test_a_source_that_is_gone_is_refused(tmp_path: Path, content: bytes | None) -> None:
    source = tmp_path / "in.dng"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(InputError, match=r"in\.dng: cannot be read again"):
        rewritten(frame_of(SAMPLES, source), tmp_path)


def test_the_input_is_never_the_output(tmp_path: Path) -> None:
    frame = built(tmp_path, SAMPLES)
    with pytest.raises(OutputError, match="overwrite its input"):
        write_frame(
            frame,
            tmp_path / SOURCE,
            level_scale=1,
            noise_reduction=0,
            residual_noise=None,
            force=True,
        )


def test_a_directory_beyond_four_gigabytes_is_refused() -> None:
    fields = [Field(Tag.WhiteLevel, Kind.SHORT, (1,))]
    with pytest.raises(OutputError, match=r"larger than 4 GiB \(met 4\.00 GiB"):
        directory_bytes(fields, offset=2**32 - 2, byte_order="<")


@pytest.mark.parametrize(("scale", "noise_reduction"), [(0, 0.0), (1, -0.1), (1, 1.1)])
def test_a_treatment_out_of_range_is_refused(
    tmp_path: Path, scale: int, noise_reduction: float
) -> None:
    with pytest.raises(SettingsError, match="out of range"):
        write_frame(
            frame_of(SAMPLES, None),
            tmp_path / "out.dng",
            level_scale=scale,
            noise_reduction=noise_reduction,
            residual_noise=None,
        )
