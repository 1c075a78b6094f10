"""What the server-drawn charts show, and that their labels can do no harm."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
from django.template import Context, Template
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluations.templatetags import charts

NAMESPACE = "{http://www.w3.org/2000/svg}"
HOSTILE = ("<script>alert(1)</script>", '"/><svg onload="alert(1)', "]]><x>&amp;", "'; alert(1) //", "\u202eevil")


def draw(tag: str, **context: Any) -> str:
    return Template("{% load charts %}{% " + tag + " %}").render(Context(context)).strip()


def parsed(svg: str) -> ElementTree.Element:
    """The SVG, read by a parser that refuses anything malformed. The namespace is HTML's business, so it is added."""
    return ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def found(root: ElementTree.Element, name: str, kind: str = "") -> list[ElementTree.Element]:
    every = root.iter(f"{NAMESPACE}{name}")
    return [element for element in every if not kind or kind in element.get("class", "").split()]


def point(label: str, price: float | None, quality: float | None, **more: Any) -> dict[str, Any]:
    return {"label": label, "price": price, "quality": quality, "low": None, "high": None, "href": "#there", **more}


INTERVAL = {"mean": 0.412, "low": 0.4, "high": 0.424}


def test_an_interval_reads_its_numbers_aloud() -> None:
    root = parsed(draw("interval_bar i s 0.405", i=INTERVAL, s=(0.39, 0.43)))
    assert root.get("role") == "img"
    assert root.get("aria-label") == "0.412, 95% interval 0.400 to 0.424"
    dot, rule = found(root, "circle", "dot")[0], found(root, "line", "rule")[0]
    left, right = (float(found(root, "line", "whisker")[0].get(side, "nan")) for side in ("x1", "x2"))
    assert left < float(rule.get("x1", "nan")) < float(dot.get("cx", "nan")) < right


def test_a_value_beyond_the_scale_is_an_arrow_not_a_dot_in_the_wrong_place() -> None:
    root = parsed(draw("interval_bar i s", i={"mean": 0.9, "low": 0.8, "high": 1.0}, s=(0.3, 0.5)))
    assert not found(root, "circle")
    assert not found(root, "line", "whisker")
    assert found(root, "path", "dot")


@pytest.mark.parametrize("interval", [None, {}, {"mean": None}, {"mean": float("nan")}])
def test_nothing_is_drawn_for_a_number_that_is_not_there(interval: Any) -> None:
    assert draw("interval_bar i s", i=interval, s=(0.0, 1.0)) == ""


def test_a_column_has_one_scale_that_holds_every_interval() -> None:
    rows = [
        {"metrics": {"meteor": INTERVAL}},
        {"metrics": {"meteor": {"mean": 0.3, "low": None, "high": None}}},
        {"metrics": {}},
    ]
    low, high = charts.scale_of(rows, "meteor")  # type: ignore[misc]
    assert low < 0.3
    assert high > 0.424
    assert charts.scale_of(rows, "rouge1") is None


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12), st.booleans())
@settings(deadline=None, max_examples=200)
def test_the_front_is_exactly_what_nothing_beats(points: list[tuple[int, int]], higher: bool) -> None:
    sign = 1 if higher else -1
    unbeaten = {
        i
        for i, (price, quality) in enumerate(points)
        if not any(
            p <= price and sign * q >= sign * quality and (p < price or sign * q > sign * quality) for p, q in points
        )
    }
    assert set(charts.front_of([(float(p), float(q)) for p, q in points], higher_is_better=higher)) == unbeaten


def test_the_plot_fills_the_front_and_lists_what_has_no_price() -> None:
    html = draw(
        "pareto p 'ROUGE-1'", p=[point("a", 0.1, 0.3), point("b", 5, 0.5), point("c", 6, 0.4), point("d", None, 0.9)]
    )
    svg, _, rest = html.partition("</svg>")
    root = parsed(svg + "</svg>")
    filled = {title.text for mark in found(root, "circle", "on-front") for title in mark.iter(f"{NAMESPACE}title")}
    assert filled == {"a: 0.300 at $0.10, on the front", "b: 0.500 at $5.00, on the front"}
    assert len(found(root, "circle", "mark")) == 3
    assert "price is unknown: d" in rest
    assert "logarithmic" in svg
    assert [link.get("href") for link in found(root, "a")] == ["#there"] * 3


def test_costs_that_are_close_are_drawn_on_a_plain_axis() -> None:
    assert "logarithmic" not in draw("pareto p", p=[point("a", 1, 0.3), point("b", 5, 0.5)])


def test_what_is_free_has_its_own_band_beside_a_logarithm() -> None:
    root = parsed(draw("pareto p", p=[point("a", 0, 0.3), point("b", 0.1, 0.5), point("c", 9, 0.6)]))
    assert "$0" in {text.text for text in found(root, "text")}
    assert float(found(root, "circle", "mark")[0].get("cx", "nan")) < charts.LEFT + charts.FREE_BAND


def test_a_bound_that_reads_the_references_is_never_on_the_front() -> None:
    root = parsed(
        draw("pareto p", p=[point("best extract", 0, 0.9, is_baseline=True, is_ceiling=True), point("a", 1, 0.5)])
    )
    assert not found(root, "path", "on-front")
    assert len(found(root, "circle", "on-front")) == 1


def test_names_on_the_plot_never_overlap() -> None:
    crowd = [point(f"model-number-{i}", 1 + i / 10, 0.4 + i / 200) for i in range(20)]
    root = parsed(draw("pareto p", p=crowd))
    boxes = []
    for text in found(root, "text", "name"):
        x, y, wide = float(text.get("x", "")), float(text.get("y", "")), len(text.text or "") * charts.CHARACTER
        left = {"end": x - wide, "middle": x - wide / 2, "start": x}[text.get("text-anchor", "start")]
        boxes.append((left, y - 11, left + wide, y + 3))
    assert boxes
    assert not any(charts._overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize(
    "points", [[], [point("a", 0, 0.5)], [point("a", 1, 0.5), point("a", 1, 0.5)], [point("x", 1, None)]]
)
def test_few_or_equal_points_draw_without_a_fault(points: list[dict[str, Any]]) -> None:
    html = draw("pareto p", p=points)
    assert html.count("<svg") == (1 if any(each["quality"] is not None for each in points) else 0)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_labels_are_only_labels(hostile: str) -> None:
    svg = (
        draw("pareto p m", p=[point(hostile, 1, 0.5), point("b", 9, 0.6)], m=hostile).partition("</svg>")[0] + "</svg>"
    )
    names = {element.tag.removeprefix(NAMESPACE) for element in parsed(svg).iter()}
    assert names <= {"svg", "title", "desc", "line", "text", "path", "a", "circle"}
    assert hostile in {title.text for title in found(parsed(svg), "title")} | {
        text.text for text in found(parsed(svg), "text")
    }


BINS = [{"low": 0, "high": 100, "count": 5}, {"low": 100, "high": 200, "count": 10}]


@pytest.mark.parametrize("bins", [BINS, {"edges": [0, 100, 200], "counts": [5, 10]}])
def test_a_distribution_draws_a_bar_for_each_bin(bins: Any) -> None:
    root = parsed(draw("histogram b 'words' 150 'Lengths'", b=bins))
    tall = [float(bar.get("height", "nan")) for bar in found(root, "rect", "bar")]
    assert tall[1] == pytest.approx(2 * tall[0])
    assert root.get("aria-label") == "Lengths of 15: from 0 to 200 words"
    assert len(found(root, "line", "rule")) == 1


def test_bins_of_fractions_are_read_as_fractions() -> None:
    root = parsed(draw("histogram b", b={"edges": [0.25, 0.5, 0.75], "counts": [1, 3]}))
    assert [title.text for bar in found(root, "rect", "bar") for title in bar.iter(f"{NAMESPACE}title")] == [
        "0.250 to 0.500: 1 (25%)",
        "0.500 to 0.750: 3 (75%)",
    ]


def test_an_empty_distribution_draws_nothing() -> None:
    assert draw("histogram b", b=[]) == draw("histogram b", b=None) == ""


def test_a_course_needs_two_values() -> None:
    assert draw("sparkline v", v=[0.3, None]) == ""
    assert parsed(draw("sparkline v", v=[0.3, None, 0.4])).get("aria-label") == "Course: 0.300 to 0.400, 2 values"


@pytest.mark.parametrize(
    "tag", ["interval_bar i s 0.405", "pareto p", "histogram b", "sparkline v"], ids=lambda tag: tag.split()[0]
)
def test_charts_carry_no_style_and_no_script(tag: str) -> None:
    html = draw(tag, i=INTERVAL, s=(0.39, 0.43), p=[point("a", 1, 0.5)], b=BINS, v=[1, 2])
    assert "style=" not in html
    assert "<script" not in html
    assert 'role="img"' in html


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 9))
@settings(deadline=None, max_examples=100)
def test_ticks_are_round_inside_and_few(low: float, span: float, about: int) -> None:
    ticks = charts.nice_ticks(low, low + span, about)
    assert len(ticks) <= 2 * about + 1
    assert all(low - span * 1e-6 - 1e-9 <= tick <= low + span * (1 + 1e-6) + 1e-9 for tick in ticks)
