"""The web process knows every metric without loading what computes it."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from evaluations.metrics import available, part_owner
for metric in available().values():
    metric.sign({}), metric.available(metric.defaults)
assert part_owner()["rougeLsum"].name == "rouge"
heavy = ("torch", "transformers", "nltk", "punkt", "rouge_score", "rouge_score_rs", "bert_score", "evaluate", "django")
print(*[name for name in heavy if name in sys.modules])
"""


def test_listing_and_signing_metrics_loads_no_heavy_library() -> None:
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=120)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == []
