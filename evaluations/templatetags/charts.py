"""Charts draws inline SVG on the server: no script, no inline style, the numbers in words for those who listen.

The geometry is worked out here and drawn by the templates in `templates/charts/`, which escape every label; colours
are classes of site.css. Beside each chart its page shows the same facts as a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from django import template

from evaluations.templatetags.words import _number, decimals, dollars, duration, percent, score
from evaluations.templatetags.words import count as counted

register = template.Library()

Scale = tuple[float, float]
Placement = Callable[[float], float]
CHARACTER = 6.4  # px: mean advance of the 12 px system font; labels are placed by it, generously


# Interval bars


@register.simple_tag
def scale_of(rows: Iterable[Any], part: str = "") -> Scale | None:
    """The one scale of a column of interval bars: the smallest low to the largest high, with 4 % of air.

    `rows` hold `metrics[part]` (comparison rows) or, without `part`, are intervals themselves: mappings with low,
    high, mean or difference. None when nothing has a value.
    """
    seen: list[float] = []
    for row in rows or ():
        interval = (row.get("metrics") or {}).get(part) if part else row
        for key in ("low", "high", "mean", "difference"):
            if interval and (value := _number(interval.get(key))) is not None:
                seen.append(value)
    if not seen:
        return None
    low, high = min(seen), max(seen)
    air = (high - low) * 0.04 or max(abs(high), 1.0) * 0.05
    return low - air, high + air


@register.inclusion_tag("charts/interval_bar.html")
def interval_bar(
    interval: Mapping[str, Any] | None, scale: Scale | None, rule: Any = None, digits: Any = None, tone: str = ""
) -> dict[str, Any]:
    """120×14: a dot at the mean (or difference), a whisker from low to high, and a rule at `rule` (a baseline, or 0).

    Nothing is drawn without a mean or a scale. A bound that is missing draws the dot alone; a mean outside the scale
    is an arrow at the edge.
    """
    interval = interval or {}
    middle = _number(interval.get("mean", interval.get("difference")))
    if middle is None or not scale:
        return {"drawn": False}
    low, high = _number(interval.get("low")), _number(interval.get("high"))
    at = _placed(scale, 4.0, 116.0)
    reads = score(middle, digits)
    if low is not None and high is not None:
        reads += f", 95% interval {score(low, digits)} to {score(high, digits)}"
    beyond = "left" if middle < scale[0] else "right" if middle > scale[1] else ""
    if beyond:
        low = high = None
    base = _number(rule)
    if base is not None and not scale[0] <= base <= scale[1]:
        base = None
    return {
        "drawn": True,
        "reads": reads,
        "tone": tone,
        "beyond": beyond,
        "dot": at(middle),
        "low": at(low) if low is not None and high is not None else None,
        "high": at(high) if low is not None and high is not None else None,
        "rule": at(base) if base is not None else None,
    }


def _placed(scale: Scale, start: float, end: float) -> Placement:
    """value → px, linear, kept inside [start, end], in tenths."""
    low, high = scale
    span = (high - low) or 1.0

    def at(value: float) -> float:
        return round(min(max(start + (value - low) / span * (end - start), min(start, end)), max(start, end)), 1)

    return at


# Quality against cost or time


@dataclass
class Mark:
    """One candidate on the plot. `short` is its name there; `label_at` is (x, y, anchor) where that fits, else None."""

    label: str
    price: float
    quality: float
    low: float | None
    high: float | None
    href: str
    is_baseline: bool
    is_ceiling: bool
    x: float = 0.0
    y: float = 0.0
    y_low: float | None = None
    y_high: float | None = None
    on_front: bool = False
    reads: str = ""
    short: str = ""
    label_at: tuple[float, float, str] | None = None


WIDTH, HEIGHT = 640.0, 340.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 620.0, 18.0, 292.0
FREE_BAND = 64.0  # px at the left for what costs nothing: a logarithm has no place for 0


@dataclass(frozen=True)
class Axis:
    """What quality is drawn against: how a price is written, what it is called, and why there may be none."""

    title: str
    write: Callable[[Any], str]
    nothing: str
    absent: str


def _span(seconds: float) -> str:
    """A time on the axis: below 10 ms with the decimals that tell one tick from the next."""
    return f"{seconds * 1000:.3g} ms" if seconds < 0.01 else duration(seconds)


AXES = {
    "cost": Axis("Cost per 1,000 documents", dollars, "$0", "the price is unknown"),
    "time": Axis("Median time per document", _span, "<1 ms", "no time was measured"),
}


@register.inclusion_tag("charts/pareto.html")
def pareto(
    points: Iterable[Mapping[str, Any]], metric: str = "", higher_is_better: Any = True, against: str = "cost"
) -> dict[str, Any]:
    """Quality against a price: the frontier as a step line through filled marks, the others hollow.

    A point: {label, price (dollars per 1,000 documents, or seconds; None = unknown), quality, low, high, href,
    is_baseline, is_ceiling}. A ceiling (it reads the references) is drawn, but never on the front. Points without a
    price or without quality are listed, never drawn at 0. The axis is logarithmic when prices span more than 10×.
    """
    axis = AXES[against]
    marks, unpriced, unscored = _sorted_out(points)
    higher = higher_is_better is not False
    metric = metric or "Quality"
    context: dict[str, Any] = {"metric": metric, "axis": axis, "unpriced": unpriced, "unscored": unscored, "marks": []}
    if not marks:
        return context
    runners = [mark for mark in marks if not mark.is_ceiling]
    ordered = [runners[i] for i in front_of([(mark.price, mark.quality) for mark in runners], higher_is_better=higher)]
    prices = [mark.price for mark in marks]
    x_at, x_ticks, has_free = _price_axis(prices, axis)
    bounds = [value for mark in marks for value in (mark.quality, mark.low, mark.high) if value is not None]
    air = (max(bounds) - min(bounds)) * 0.08 or abs(max(bounds)) * 0.1 or 0.1
    scale = (min(bounds) - air, max(bounds) + air)
    y_at = _placed(scale, BOTTOM, TOP) if higher else _placed(scale, TOP, BOTTOM)
    for mark in ordered:
        mark.on_front = True
    for mark in marks:
        mark.x, mark.y = x_at(mark.price), y_at(mark.quality)
        mark.reads = (
            f"{mark.label}: {score(mark.quality)} at {axis.write(mark.price)}" + ", on the front" * mark.on_front
        )
        if mark.low is not None and mark.high is not None:
            mark.y_low, mark.y_high = y_at(mark.low), y_at(mark.high)
    steps = _steps(ordered)
    _name_shortly(marks)
    _place_labels(ordered, marks, steps)
    names = ", ".join(mark.label for mark in ordered)
    reads = f"{metric} against {axis.title.lower()}, {len(marks)} candidates. On the front, cheapest first: {names}."
    return context | {
        "marks": sorted(marks, key=lambda mark: mark.on_front),
        "steps": steps,
        "x_ticks": x_ticks,
        "y_ticks": _quality_ticks(scale, y_at),
        "has_free": has_free,
        "is_log": _is_log(prices),
        "reads": reads,
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": RIGHT,
        "top": TOP,
        "bottom": BOTTOM,
        "middle": (LEFT + RIGHT) / 2,
        "centre": (TOP + BOTTOM) / 2,
        "band": LEFT + FREE_BAND,
    }


def _quality_ticks(scale: Scale, y_at: Placement) -> list[dict[str, Any]]:
    ticks = nice_ticks(scale[0], scale[1], 5)
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9)) if len(ticks) > 1 else 3
    return [{"at": y_at(tick), "label": score(tick, digits)} for tick in ticks]


def _sorted_out(points: Iterable[Mapping[str, Any]]) -> tuple[list[Mark], list[str], list[str]]:
    """(what can be drawn, labels without a price, labels without quality)."""
    marks: list[Mark] = []
    unpriced: list[str] = []
    unscored: list[str] = []
    for point in points or ():
        price, quality = _number(point.get("price")), _number(point.get("quality"))
        label = str(point.get("label", ""))
        if quality is None:
            unscored.append(label)
        elif price is None or price < 0:
            unpriced.append(label)
        else:
            marks.append(
                Mark(
                    label=label,
                    price=price,
                    quality=quality,
                    low=_number(point.get("low")),
                    high=_number(point.get("high")),
                    href=str(point.get("href") or ""),
                    is_baseline=bool(point.get("is_baseline")),
                    is_ceiling=bool(point.get("is_ceiling")),
                )
            )
    return marks, unpriced, unscored


def front_of(points: Sequence[tuple[float, float]], *, higher_is_better: bool = True) -> list[int]:
    """The positions of the (price, quality) pairs that no other pair beats on both, cheapest first.

    A pair is beaten by one that is no worse on both and better on one; of equal pairs all stay.
    """
    sign = 1.0 if higher_is_better else -1.0
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -sign * points[i][1]))
    front: list[int] = []
    best = -math.inf
    for i in order:
        worth = sign * points[i][1]
        if worth > best or (front and points[i] == points[front[-1]]):
            front.append(i)
            best = max(best, worth)
    return front


def _is_log(prices: Sequence[float]) -> bool:
    paid = [price for price in prices if price > 0]
    return bool(paid) and max(paid) > 10 * min(paid)


def _price_axis(prices: Sequence[float], axis: Axis) -> tuple[Placement, list[dict[str, Any]], bool]:
    """(price → px, ticks, whether there is a band at the left for what costs nothing)."""
    paid = [price for price in prices if price > 0]
    nothing = {"at": LEFT + FREE_BAND / 2, "label": axis.nothing}
    if not paid:
        return (lambda price: LEFT + FREE_BAND / 2), [nothing], True
    if not _is_log(prices):
        top = max(paid) * 1.12
        at = _placed((0.0, top), LEFT, RIGHT)
        return (
            at,
            [{"at": at(tick), "label": axis.write(tick) if tick else "0"} for tick in nice_ticks(0.0, top, 6)],
            False,
        )
    has_free = len(paid) < len(prices)
    start = LEFT + (FREE_BAND if has_free else 0.0)
    place = _placed((math.log10(min(paid)) - 0.12, math.log10(max(paid)) + 0.15), start, RIGHT)
    ticks = [{"at": place(math.log10(tick)), "label": axis.write(tick)} for tick in log_ticks(min(paid), max(paid))]
    return (
        (lambda price: place(math.log10(price)) if price > 0 else LEFT + FREE_BAND / 2),
        ([nothing] if has_free else []) + ticks,
        has_free,
    )


def nice_ticks(low: float, high: float, about: int) -> list[float]:
    """About `about` round numbers inside [low, high]: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(position * step, 12) for position in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten inside [low, high], with 2 and 5 between them when there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1.0, 2.0, 5.0) if last - first <= 2 else (1.0, 3.0) if last - first <= 3 else (1.0,)
    every = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    return [tick for tick in every if low * 0.75 <= tick <= high * 1.35]


def _steps(front: Sequence[Mark]) -> str:
    """The frontier as an SVG path: level until the next mark's price, then to its quality; level to the right edge."""
    if not front:
        return ""
    path = f"M{front[0].x} {front[0].y}"
    for _, mark in pairwise(front):
        path += f"H{mark.x}V{mark.y}"
    return f"{path}H{RIGHT}"


def _name_shortly(marks: Sequence[Mark]) -> None:
    """Names for the plot: without the owner before the slash where that is clear, and 26 characters at most."""
    ends = [mark.label.rpartition("/")[2] or mark.label for mark in marks]
    for mark, end in zip(marks, ends, strict=True):
        name = end if ends.count(end) == 1 else mark.label
        mark.short = name if len(name) <= 26 else f"{name[:12]}…{name[-12:]}"


def _place_labels(front: Sequence[Mark], marks: Sequence[Mark], steps: str) -> None:
    """Give each mark of the front the first place for its name that is free and inside; the best mark chooses first.

    The frontier climbs to the right, so above-left is away from it. A name that fits nowhere is left to the table.
    """
    taken = [(mark.x - 6, mark.y - 6, mark.x + 6, mark.y + 6) for mark in marks]
    taken += _segments(steps)
    for mark in reversed(front):
        wide = len(mark.short) * CHARACTER
        centred = min(max(mark.x, LEFT + 3 + wide / 2), WIDTH - 3 - wide / 2)
        for x, y, anchor in (
            (mark.x - 9, mark.y - 8, "end"),
            (mark.x + 9, mark.y - 8, "start"),
            (centred, mark.y - 11, "middle"),
            (mark.x + 9, mark.y + 17, "start"),
            (centred, mark.y + 20, "middle"),
            (mark.x - 9, mark.y + 17, "end"),
        ):
            left = x - wide if anchor == "end" else x - wide / 2 if anchor == "middle" else x
            box = (left, y - 11, left + wide, y + 3)
            inside = box[0] >= LEFT + 2 and box[2] <= WIDTH - 2 and box[1] >= 0 and box[3] <= BOTTOM
            if inside and not any(_overlap(box, other) for other in taken):
                mark.label_at = (round(x, 1), round(y, 1), anchor)
                taken.append(box)
                break


def _segments(steps: str) -> list[tuple[float, float, float, float]]:
    """The frontier's path as thin boxes."""
    boxes: list[tuple[float, float, float, float]] = []
    if not steps:
        return boxes
    start, *moves = steps.replace("H", "|H").replace("V", "|V").split("|")
    x, y = (float(number) for number in start[1:].split())
    for move in moves:
        to_x, to_y = (float(move[1:]), y) if move[0] == "H" else (x, float(move[1:]))
        boxes.append((min(x, to_x) - 1, min(y, to_y) - 1, max(x, to_x) + 1, max(y, to_y) + 1))
        x, y = to_x, to_y
    return boxes


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


# Distributions


@register.inclusion_tag("charts/histogram.html")
def histogram(bins: Any, unit: str = "", mark: Any = None, label: str = "") -> dict[str, Any]:
    """A distribution. `bins`: [{low, high, count}], or {edges: [n+1], counts: [n]}. `mark` draws a rule at a value
    (a model's context window, say). Bars share one width; the ends and the mark are written in numbers."""
    rows = _bins(bins)
    total = sum(row[2] for row in rows)
    if not total:
        return {"bars": []}
    width, height, floor = 320.0, 96.0, 74.0
    tallest = max(row[2] for row in rows)
    scale = (rows[0][0], rows[-1][1])
    at = _placed(scale, 2.0, width - 2.0)
    digits = 0 if scale[1] >= 10 else decimals(scale[1])
    bars = []
    for low, high, amount in rows:
        tall = round(amount / tallest * (floor - 6), 1)
        left = at(low)
        bars.append(
            {
                "x": left,
                "y": round(floor - tall, 1),
                "width": round(max(at(high) - left - 1, 0.8), 1),
                "height": tall,
                "reads": f"{f'{score(low, digits)} to {score(high, digits)} {unit}'.strip()}: {counted(amount)} "
                f"({percent(amount / total)})",
            }
        )
    marked = _number(mark)
    shows = marked is not None and scale[0] <= marked <= scale[1]
    return {
        "bars": bars,
        "width": width,
        "height": height,
        "floor": floor,
        "low": score(scale[0], digits),
        "high": score(scale[1], digits),
        "unit": unit,
        "rule": at(marked) if shows and marked is not None else None,
        "rule_label": score(marked, digits) if shows else "",
        "reads": f"{label or 'Distribution'} of {counted(total)}: from {score(scale[0], digits)} to "
        f"{score(scale[1], digits)} {unit}".strip(),
    }


def _bins(bins: Any) -> list[tuple[float, float, float]]:
    if isinstance(bins, Mapping):
        edges, counts = list(bins.get("edges") or ()), list(bins.get("counts") or ())
        rows = [(low, high, amount) for (low, high), amount in zip(pairwise(edges), counts, strict=False)]
    else:
        rows = [(row.get("low"), row.get("high"), row.get("count")) for row in bins or ()]
    return [(float(low), float(high), float(amount)) for low, high, amount in rows if None not in (low, high, amount)]


@register.inclusion_tag("charts/sparkline.html")
def sparkline(values: Iterable[Any], label: str = "") -> dict[str, Any]:
    """120×24: how a number went, oldest first. Missing values are left out; fewer than two draw nothing."""
    seen = [number for value in values or () if (number := _number(value)) is not None]
    if len(seen) < 2:
        return {"points": ""}
    x_at, y_at = _placed((0.0, len(seen) - 1.0), 3.0, 117.0), _placed((min(seen), max(seen)), 21.0, 3.0)
    points = [(x_at(position), y_at(value)) for position, value in enumerate(seen)]
    return {
        "points": " ".join(f"{x},{y}" for x, y in points),
        "x": points[-1][0],
        "y": points[-1][1],
        "reads": f"{label or 'Course'}: {score(seen[0])} to {score(seen[-1])}, {len(seen)} values",
    }
