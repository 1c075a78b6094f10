"""Words puts numbers, money, time, states and verdicts into the words of a page, and marks how two texts differ.

A missing value is shown as missing ("–", or "unpriced"), never as 0. Everything that becomes HTML is escaped.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from typing import Any

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from evaluations import metrics

register = template.Library()

ABSENT = "–"
MINUS = "−"
GLYPHS = {"calm": "○", "busy": "◐", "good": "●", "warn": "▲", "bad": "✕"}
VERDICTS = {
    "better": ("▲", "better"),
    "worse": ("▼", "worse"),
    "no clear difference": ("≈", "same"),
    "borderline": ("◇", "unknown"),
    "too little data": ("…", "unknown"),
}
DIFF_LIMIT = 25_000
"""How many (word here, same word there) pairs two texts may have: what the comparison's time grows with. Two summaries
of 800 words of prose have some 20,000 (40 ms); the slowest texts we could build take 0.4 s at the limit. Beyond it,
as in an output that repeats itself for ever, the text is shown unmarked, and says so."""

_WORD = re.compile(r"(\s*)(\w+(?:['’\-]\w+)*|[^\w\s])")


def _number(value: Any) -> float | None:
    """`value` as a finite float, else None (absent, text, NaN, infinity)."""
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _signed(text: str) -> str:
    return text.replace("-", MINUS)


@register.filter
def percent(value: Any, digits: int = 0) -> str:
    """A share of 1 as a percentage. What is not all (or nothing) is never rounded to it: 0.9996 is ">99%"."""
    if (share := _number(value)) is None:
        return ABSENT
    step = 10.0**-digits
    shown = 100 * share
    if 0 < share < 1 and round(shown, digits) >= 100:
        return f">{100 - step:.{digits}f}%"
    if 0 < share < 1 and round(shown, digits) == 0:
        return f"<{step:.{digits}f}%"
    return _signed(f"{shown:.{digits}f}%")


@register.filter
def dollars(value: Any) -> str:
    """An amount in dollars; None is "unpriced". Below a dollar two significant digits: 0.00123 is "$0.0012"."""
    if (amount := _number(value)) is None:
        return "unpriced"
    size = abs(amount)
    sign = MINUS if amount < 0 else ""
    if size == 0:
        return "$0"
    if size >= 1000:
        return f"{sign}${size:,.0f}"
    if size >= 0.1:
        return f"{sign}${size:.2f}"
    digits = min(12, 1 - math.floor(math.log10(size)))
    return f"{sign}${size:.{digits}f}"


@register.filter
def usd(micro: Any) -> str:
    """An amount in micro-dollars, as the database keeps it; None is "unpriced"."""
    amount = _number(micro)
    return dollars(None if amount is None else amount / 1_000_000)


@register.filter
def score(value: Any, digits: Any = None) -> str:
    """A metric's value with `digits` decimals; without them three below 10, one below 1,000, none above."""
    if (number := _number(value)) is None:
        return ABSENT
    return _signed(f"{number:,.{decimals(number) if digits in (None, '') else int(digits)}f}")


def decimals(largest: float) -> int:
    """How many decimals suit a column whose largest absolute value is `largest`."""
    return 3 if abs(largest) < 10 else 1 if abs(largest) < 1000 else 0


@register.filter
def signed(value: Any, digits: Any = None) -> str:
    """A difference with its sign and a real minus: "+0.012", "−0.003"; exactly none is "0"."""
    if (number := _number(value)) is None:
        return ABSENT
    if number == 0:
        return "0"
    places = decimals(number) if digits in (None, "") else int(digits)
    return _signed(f"{number:+,.{places}f}")


@register.filter
def p_value(value: Any) -> str:
    """A p-value in three decimals, or "<0.001"."""
    if (p := _number(value)) is None:
        return ABSENT
    return "<0.001" if p < 0.001 else f"{p:.3f}"


@register.filter
def count(value: Any) -> str:
    """A whole number with its thousands apart."""
    number = _number(value)
    return ABSENT if number is None else _signed(f"{number:,.0f}")


@register.filter
def compact(value: Any) -> str:
    """A large number in few characters: 139_000_000 is "139 M"."""
    if (number := _number(value)) is None:
        return ABSENT
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return _signed(f"{number / size:.3g} {unit}")
    return _signed(f"{number:g}")


@register.filter
def shortly(value: Any) -> str:
    """A number without needless zeros: 1.0 is "1", 0.05 is "0.05"."""
    number = _number(value)
    return ABSENT if number is None else _signed(f"{number:,g}")


@register.filter
def duration(seconds: Any) -> str:
    """A time span: "420 ms", "3.2 s", "4 min 10 s", "2 h 05 min", "3 d 4 h"."""
    number = _number(seconds)
    if number is None or number < 0:
        return ABSENT
    if number < 0.9995:
        return f"{number * 1000:.0f} ms"
    if number < 9.95:
        return f"{number:.1f} s"
    whole = round(number)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


@register.filter
def milliseconds(value: Any) -> str:
    """A latency in milliseconds, as a time span."""
    number = _number(value)
    if number is not None and 0 <= number < 0.5:
        return "<1 ms"
    return duration(None if number is None else number / 1000)


@register.filter
def state(thing: Any) -> SafeString | str:
    """The mark of a state: its glyph and its label. `thing` has `label` and `tone`, as attributes or as keys."""
    if not thing:
        return ABSENT
    read = thing.get if isinstance(thing, dict) else lambda key, default="": getattr(thing, key, default)
    tone = str(read("tone", ""))
    if tone not in GLYPHS:
        tone = "calm"
    return format_html(
        '<span class="state {}"><span aria-hidden="true">{}</span>{}</span>', tone, GLYPHS[tone], read("label", "")
    )


@register.filter
def verdict(words: Any) -> SafeString | str:
    """A verdict with its glyph; the glyph and the words say the same, and the colour only repeats them."""
    if not words:
        return ABSENT
    glyph, name = VERDICTS.get(str(words), ("·", "unknown"))
    return format_html('<span class="verdict {}"><span aria-hidden="true">{}</span> {}</span>', name, glyph, words)


@register.filter
def verdict_glyph(words: Any) -> SafeString | str:
    """Only the glyph of a verdict, with the words for those who listen or hover; "" where nothing is clear."""
    glyph, name = VERDICTS.get(str(words), ("", ""))
    if not glyph or words in ("no clear difference", "too little data"):
        return ""
    return format_html(
        '<span class="verdict {}" title="{}"><span aria-hidden="true">{}</span>'
        '<span class="quiet-words"> ({})</span></span>',
        name,
        words,
        glyph,
        words,
    )


@register.filter
def non_inferiority(words: Any) -> SafeString | str:
    """The verdict on "may it replace the other?", with its glyph."""
    told = {
        "non-inferior": ("●", "good", "yes"),
        "worse": ("✕", "bad", "no"),
        "inconclusive": ("…", "muted", "not shown"),
    }
    if words not in told:
        return ABSENT
    glyph, name, said = told[words]
    return format_html('<span class="{}"><span aria-hidden="true">{}</span> {}</span>', name, glyph, said)


@register.filter
def word_diff(text: Any, reference: Any) -> SafeString:
    """How `text` differs from `reference`, word by word: <ins> is only in `text`, <del> only in `reference`.

    White space is taken from the text it stands in and never counts as a difference. Texts beyond DIFF_LIMIT are
    returned unmarked, with a remark.
    """
    text, reference = str(text or ""), str(reference or "")
    new, old = _words(text), _words(reference)
    here, there = Counter(word for _, word in new), Counter(word for _, word in old)
    if len(new) + len(old) > 20_000 or sum(amount * there[word] for word, amount in here.items()) > DIFF_LIMIT:
        return format_html('{}\n<small class="muted">(too long to be compared word by word)</small>', text)
    matcher = difflib.SequenceMatcher(None, [word for _, word in old], [word for _, word in new], autojunk=False)
    pieces: list[SafeString] = []
    for tag, old_from, old_to, new_from, new_to in matcher.get_opcodes():
        if tag == "equal":
            pieces.append(format_html("{}", _joined(new[new_from:new_to])))
            continue
        if tag in ("delete", "replace"):
            pieces.append(_marked("del", old[old_from:old_to]))
            if new_from < len(new) and not new[new_from][0] and new[new_from][1][0].isalnum():
                pieces.append(format_html("{}", " "))  # or the struck word would touch the one after it
        if tag in ("insert", "replace"):
            pieces.append(_marked("ins", new[new_from:new_to]))
    return format_html_join("", "{}", ((piece,) for piece in pieces))


def _words(text: str) -> list[tuple[str, str]]:
    """[(white space before, word or single sign)]."""
    return [(match[1], match[2]) for match in _WORD.finditer(text)]


def _joined(words: list[tuple[str, str]]) -> str:
    return "".join(space + word for space, word in words)


def _marked(tag: str, words: list[tuple[str, str]]) -> SafeString:
    """The words inside <ins> or <del>, with the white space before the first one left outside."""
    inner = words[0][1] + _joined(words[1:])
    template_ = "{}<del>{}</del>" if tag == "del" else "{}<ins>{}</ins>"
    return format_html(template_, words[0][0], inner)


@register.filter
def breakable(label: Any) -> SafeString:
    """A long name that may go on in the next line after a slash or an underscore."""
    return format_html_join("", "{}<wbr>", ((piece,) for piece in re.split(r"(?<=[/_])", str(label))))


@register.filter
def current(path: Any, place: str) -> SafeString | str:
    """` aria-current="page"` when the request's path lies in `place` ("datasets" for /datasets/…), else nothing."""
    inside = str(path or "").strip("/").split("/")
    return format_html(' aria-current="{}"', "page") if inside[0] == place else ""


@register.filter
def part_label(name: Any) -> str:
    """What people call a metric part: "ROUGE-Lsum" for "rougeLsum"; the name itself where its metric is gone."""
    owner = metrics.part_owner().get(str(name))
    return owner.part(str(name)).label if owner else str(name)


@register.filter
def unavailable(metric: Any) -> str:
    """Why this installation cannot compute a metric with its default options; empty when it can."""
    return metric.available(metric.defaults)


@register.filter
def lookup(mapping: Any, key: Any) -> Any:
    """`mapping[key]`, or None: for keys that are only known in the template."""
    if not isinstance(mapping, dict):
        return None
    return mapping.get(key, mapping.get(str(key)))


@register.simple_tag(takes_context=True)
def url_with(context: template.Context, **changes: Any) -> str:
    """This page's query string with some parameters changed (None or "" takes one away), beginning with "?"."""
    request = context.get("request")
    query = request.GET.copy() if request is not None else _empty_query()
    for name, value in changes.items():
        query.pop(name, None)
        if value not in (None, ""):
            query[name] = str(value)
    return f"?{query.urlencode()}"


@register.simple_tag
def url_of(**parameters: Any) -> str:
    """A query string of these parameters, beginning with "?"."""
    query = _empty_query()
    query.update(parameters)
    return f"?{query.urlencode()}"


def _empty_query() -> Any:
    from django.http import QueryDict

    return QueryDict(mutable=True)


@register.inclusion_tag("evaluations/_sort.html", takes_context=True)
def sort_by(context: template.Context, key: Any, label: str, default: str = "") -> dict[str, Any]:
    """The inside of a <th>: a link that sorts by `key`, and turns the order on a second click. `?sort=-key` is
    descending. Put `{% sort_aria key default %}` into the <th> itself."""
    goes_down = _sorted_by(context, default) == f"-{key}"
    return {"href": url_with(context, sort=key if goes_down else f"-{key}", after=""), "label": label}


@register.simple_tag(takes_context=True)
def sort_aria(context: template.Context, key: Any, default: str = "") -> SafeString | str:
    """` aria-sort="…"` for the <th> of the column that the page is sorted by."""
    sorted_by = _sorted_by(context, default)
    if sorted_by.removeprefix("-") != str(key):
        return ""
    return format_html(' aria-sort="{}"', "descending" if sorted_by.startswith("-") else "ascending")


def _sorted_by(context: template.Context, default: str) -> str:
    request = context.get("request")
    return (request.GET.get("sort") if request is not None else None) or default
