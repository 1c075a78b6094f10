"""Draw docs/assets/metrics.png: every metric in its own words, with the guide's example computed on this machine.

    python docs/assets/draw.py

The words are those of the plug-ins (`Metric.about`), so the picture changes when they do. It needs the packages of
the `test` lock (Playwright) and a Chromium.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 1280


def rows() -> list[dict[str, Any]]:
    """What the picture says of every metric that can be computed here, and why not of the others."""
    from evaluations.metrics import available
    from evaluations.selfchecking import worked_example

    told = []
    for metric in available().values():
        why_not = metric.available(metric.defaults)
        values = {} if why_not else worked_example(metric)
        shown = [
            (part, values.get(part.name)) for part in metric.parts if not part.name.endswith(("_precision", "_recall"))
        ]
        told.append({"metric": metric, "why_not": why_not, "parts": shown, "about": beginning(metric.about, 3)})
    return told


def beginning(text: str, count: int) -> str:
    """The first sentences of a metric's words."""
    from models_registry.sentences import sentences

    return " ".join(sentences(text)[:count])


def main() -> None:
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lumigator.settings")
    import django

    django.setup()
    from django.template.loader import render_to_string
    from playwright.sync_api import sync_playwright

    from evaluations.metrics import EXAMPLE

    styles = "".join((ROOT / f"lumigator/static/lumigator/{name}.css").read_text() for name in ("tokens", "site"))
    page = render_to_string("guide/metrics_picture.html", {"rows": rows(), "example": EXAMPLE})
    chromium = os.environ.get("LUMIGATOR_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        sheet = browser.new_page(viewport={"width": WIDTH, "height": 800}, color_scheme="light")
        sheet.set_content(page)
        sheet.add_style_tag(content=styles)
        sheet.screenshot(path=str(Path(__file__).with_name("metrics.png")), full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
