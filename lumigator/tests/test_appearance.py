"""The looks that can be checked by arithmetic: contrast, and that every template obeys the content security policy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "lumigator" / "static" / "lumigator"
TEMPLATES = sorted((ROOT / "templates").rglob("*.html"))
TOKENS = dict(re.findall(r"--([a-z]+): light-dark\((#\w{6}, #\w{6})\)", (STATIC / "tokens.css").read_text()))


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2) of "#rrggbb"."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["page", "panel"])
@pytest.mark.parametrize(
    ("token", "least"),
    [("text", 7), ("muted", 5.5), ("link", 5.5), ("better", 5.5), ("worse", 5.5), ("warn", 5.5), ("edge", 3)],
)
def test_every_colour_can_be_read_on_its_ground(token: str, least: float, ground: str, theme: int) -> None:
    colour, behind = (TOKENS[name].split(", ")[theme] for name in (token, ground))
    assert contrast(colour, behind) >= least


def test_no_colour_is_named_outside_the_tokens() -> None:
    for sheet in ("site.css", "admin.css"):
        assert not re.findall(r"#[0-9a-fA-F]{3,8}\b(?!-)", re.sub(r"#[a-z-]+[ ,.{:]", "", (STATIC / sheet).read_text()))


def test_every_colour_that_is_used_exists() -> None:
    defined = set(re.findall(r"--([\w-]+):", "".join(sheet.read_text() for sheet in STATIC.glob("*.css"))))
    used = set(re.findall(r"var\(--([\w-]+)\)", "".join(sheet.read_text() for sheet in STATIC.glob("*.css"))))
    assert used <= defined


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT / "templates")))
def test_a_template_has_nothing_that_the_policy_would_block(template: Path) -> None:
    text = template.read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)", text), "an inline script"
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text), "an inline style or handler"
    assert not re.search(r"\|\s*safe\b|autoescape off|mark_safe", text), "something is not escaped"


def test_no_page_loads_anything_from_elsewhere() -> None:
    for path in [*TEMPLATES, *STATIC.iterdir()]:
        loaded = re.findall(r"""(?:src|@import|url\()\s*=?\s*["'(]?(https?://[^"')\s]+)""", path.read_text())
        assert not loaded, path
