"""Charts: well-formed, bounded, the same bytes for the same data, readable in light and dark."""

from __future__ import annotations

import base64
import hashlib
import itertools
import math
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.charts import (
    COLORS,
    PAPERS,
    WIDTH,
    Series,
    bar_chart,
    line_chart,
    ticks,
)
from cycleisp_runtime.html_page import html_page

SVG = "{http://www.w3.org/2000/svg}"

# XML 1.0 has no way to write control characters or surrogates; a chart's words have none.
words = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"))
numbers = st.floats(-1e6, 1e6, allow_subnormal=False) | st.sampled_from(
    [math.nan, math.inf, -math.inf]
)
lines = st.builds(Series, words, st.lists(st.tuples(numbers, numbers), max_size=6))


def drawn(chart: str) -> ET.Element:
    """The chart as a browser would take it, after a look at every coordinate."""
    root = ET.fromstring(chart)  # noqa: S314  of our own making
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    for circle in root.iter(f"{SVG}circle"):
        assert 0 <= float(circle.attrib["cx"]) <= width
        assert 0 <= float(circle.attrib["cy"]) <= height
    for bar in root.iter(f"{SVG}rect"):
        if "x" in bar.attrib:
            assert 0 <= float(bar.attrib["x"])
            assert float(bar.attrib["x"]) + float(bar.attrib["width"]) <= width
    return root


@given(words, st.lists(lines, max_size=8), st.booleans(), st.booleans())
def test_any_lines_make_a_chart_with_a_mark_for_each_finite_point(
    title: str, series: list[Series], log_x: bool, log_y: bool
) -> None:
    chart = line_chart(title, series, x_label=title, y_label="<dB>", log_x=log_x, log_y=log_y)
    root = drawn(chart)
    finite = [
        (x, y)
        for each in series
        for x, y in each.finite
        if (x > 0 or not log_x) and (y > 0 or not log_y)
    ]
    assert len(list(root.iter(f"{SVG}circle"))) == len(finite)
    texts = [element.text or "" for element in root.iter(f"{SVG}text")]
    assert texts.count("<dB>") >= 1
    assert title in texts


@given(st.lists(words, max_size=5), st.lists(words, max_size=8, unique=True), st.data())
def test_any_bars_make_a_chart_with_a_bar_for_each_finite_value(
    labels: list[str], names: list[str], data: st.DataObject
) -> None:
    values = st.lists(numbers, min_size=len(labels), max_size=len(labels))
    series = {name: data.draw(values) for name in names}
    root = drawn(bar_chart("cost", labels, series, x_label="ms per MP"))
    bars = [each for each in root.iter(f"{SVG}rect") if each.find(f"{SVG}title") is not None]
    assert len(bars) == sum(math.isfinite(each) for row in series.values() for each in row)


@given(st.lists(numbers), st.integers(3, 12))
def test_ticks_are_few_round_numbers_around_the_values(values: list[float], most: int) -> None:
    marks = ticks(values, most)
    assert 2 <= len(marks) <= most
    finite = [value for value in values if math.isfinite(value)]
    assert all(marks[0] <= value <= marks[-1] for value in finite)
    step = marks[1] - marks[0]
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-6)
    assert min(abs(mantissa - round_one) for round_one in (1, 2, 5)) < 1e-3


def test_marks_stand_where_their_values_say() -> None:
    chart = line_chart("t", [Series("a", [(0, 0), (10, 5)])], x_label="x", y_label="y")
    root = drawn(chart)
    labels = {
        (each.text, each.attrib["text-anchor"]): each.attrib for each in root.iter(f"{SVG}text")
    }
    first, last = root.iter(f"{SVG}circle")
    assert first.attrib["cx"] == labels["0", "middle"]["x"]
    assert last.attrib["cx"] == labels["10", "middle"]["x"]
    assert float(last.attrib["cy"]) == pytest.approx(float(labels["5", "end"]["y"]) - 4)


def test_decades_are_as_far_apart_on_a_logarithmic_axis() -> None:
    points = [(10.0**power, 0.0) for power in range(-3, 4)]
    root = drawn(line_chart("t", [Series("a", points)], x_label="x", y_label="y", log_x=True))
    places = [float(each.attrib["cx"]) for each in root.iter(f"{SVG}circle")]
    gaps = [after - before for before, after in itertools.pairwise(places)]
    assert gaps == pytest.approx([gaps[0]] * 6, abs=0.2)  # coordinates have one decimal


def test_names_of_x_are_thinned_until_they_fit_but_every_mark_tells_its_own() -> None:
    names = [f"group{index}.conv" for index in range(200)]
    points = [(index, 1.0) for index in range(200)]
    chart = line_chart("t", [Series("a", points)], x_label="x", y_label="y", x_names=names)
    written = [each for each in drawn(chart).iter(f"{SVG}text") if each.text in names]
    assert 13 * len(written) <= WIDTH
    hints = [each.text for each in drawn(chart).iter(f"{SVG}title")]
    assert hints == [f"a, {name}: 1" for name in names]


def luminance(color: str) -> float:
    """Relative luminance of WCAG 2.1."""
    codes = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        code / 12.92 if code <= 0.04045 else ((code + 0.055) / 1.055) ** 2.4 for code in codes
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("paper", PAPERS)
@pytest.mark.parametrize("color", COLORS)
def test_lines_stand_out_from_both_papers(color: str, paper: str) -> None:
    dark, light = sorted((luminance(color), luminance(paper)))
    assert (light + 0.05) / (dark + 0.05) >= 3


def test_a_page_allows_its_own_script_and_nothing_from_elsewhere() -> None:
    script = "document.title = 'moved'"
    page = html_page("A & B", "<p>body</p>", script=script)
    assert page.count("A &amp; B") == 2
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{digest}'" in policy
    assert f"<script>{script}</script>" in page
    assert not re.search(r"https?://", page)
