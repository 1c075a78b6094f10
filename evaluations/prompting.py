"""Prompting fills a template's placeholders, and shows what a model will be sent before it is.

A template holds `{document}` once, and may hold `{words}` and `{language}`, which are filled when a candidate is
frozen: its spec keeps the settled template, with nothing but `{document}` left, and that text's version.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from evaluations import tasks

CHARACTERS_PER_TOKEN = 4
"""An estimate for English prose, good for a forecast; every model counts its own when it runs."""

PLACEHOLDERS = {
    "document": "the text of the example",
    "words": "the length of a usual summary: the median of the dataset's references, in words",
    "language": "the language that the summary is to be in",
}
"""Every placeholder, and what stands in its place."""
CURES = {
    "words": "this dataset has no reference summaries to take a length from: write a number instead",
    "language": "no language is given: name it instead",
}
MEANT = {"text": "document", "source": "document", "article": "document", "input": "document", "length": "words"}
"""What other tools call ours."""
_BRACED = re.compile(r"\{+\s*([A-Za-z_]{1,40})\s*\}+")


@dataclass(frozen=True)
class Preview:
    """What a model will be sent for one example.

    `tokens` are those of `text`, `document_tokens` those of the document in it; `basis` says how they were counted.
    `remarks` are what looks like a mistake in the template but may be meant.
    """

    text: str
    version: str
    tokens: int
    document_tokens: int
    basis: str
    remarks: tuple[str, ...] = ()


def values_of(profile: Mapping[str, Any], language: str = "") -> dict[str, str]:
    """What a dataset's profile says for the placeholders; one that it does not know is absent."""
    values = {}
    figures = profile.get("reference_words")
    if figures and figures.get("median"):
        values["words"] = str(max(1, round(figures["median"])))
    if language.strip():
        values["language"] = language.strip()
    return values


def problems_of(template: str, values: Mapping[str, str]) -> list[str]:
    """What is wrong with a template, in words: the place of the document, or a placeholder that has no value."""
    missing = [name for name in CURES if f"{{{name}}}" in template and not values.get(name)]
    return [*tasks.problems_of(template), *(f"the prompt holds {{{name}}}, but {CURES[name]}" for name in missing)]


def settle(template: str, values: Mapping[str, str]) -> str:
    """The template with all but `{document}` filled. Raises ValueError with what `problems_of` says."""
    if problems := problems_of(template, values):
        raise ValueError("; ".join(problems))
    pattern = "|".join(re.escape(f"{{{name}}}") for name in CURES)
    return re.sub(pattern, lambda found: values[found.group()[1:-1]], template)


def remarks_on(template: str) -> list[str]:
    """What is sent as it stands although it looks like a placeholder, and which one was probably meant."""
    said = []
    for found in dict.fromkeys(match.group() for match in _BRACED.finditer(template)):
        name = found.strip("{} \t\n")
        if found == f"{{{name}}}" and name in PLACEHOLDERS:
            continue
        near = MEANT.get(name.lower()) or next(iter(get_close_matches(name.lower(), PLACEHOLDERS, 1, 0.6)), None)
        cure = (
            f"; did you mean {{{near}}}?" if near else f"; there is {', '.join(f'{{{each}}}' for each in PLACEHOLDERS)}"
        )
        said.append(f"{found} is sent as it stands{cure}")
    return said


def preview(
    template: str, document: str, values: Mapping[str, str], count: Callable[[str], int] | None = None
) -> Preview:
    """The prompt as a model reads it, for one document. Raises ValueError when the template cannot be used.

    `count` gives the tokens of a text as an opened model counts them; without it they are estimated, as in the plan.
    """
    settled = settle(template, values)
    text = tasks.render(settled, document)
    counted = count or _estimated
    basis = "counted by the model" if count else f"estimated as characters divided by {CHARACTERS_PER_TOKEN}"
    return Preview(
        text, tasks.version_of(settled), counted(text), counted(document), basis, tuple(remarks_on(template))
    )


def _estimated(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)
