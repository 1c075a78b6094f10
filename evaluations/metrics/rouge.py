"""ROUGE: word overlap with a reference summary (Lin 2004, "ROUGE: a package for automatic evaluation of summaries").

Every number has the bits of `rouge-score` 0.1.2, the implementation that papers quote; `_rouge_counting` says how
they are computed so much faster. Other scripts are read by the tokenizers of `rouge-score-rs`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from evaluations.metrics import EXAMPLE, Absent, Check, Item, Metric, Options, Part, Value, _rouge_counting
from evaluations.metrics import _sentences as cutting
from evaluations.metrics._admitting import AGGREGATIONS, absence, choice, everywhere, usable
from evaluations.metrics._remembering import Memory
from evaluations.metrics._rouge_counting import KINDS

TOKENIZERS = ("rouge-score", "unicode", "character")
BATCH = 1024  # pairs scored at once: bounds the memory of the results, not their values
REMEMBERED_BYTES = 16 * 2**20
READABLE = re.compile("[A-Za-z0-9\u0130\u212a]")  # the last two are letters whose lower case is, or begins with, a–z

ABOUT = """ROUGE counts how many words of a reference summary (a human one, say) also stand in the output. ROUGE-1
looks at single words, ROUGE-2 at pairs of neighbours, ROUGE-L at the longest run of words in the same order, not
necessarily adjacent; ROUGE-Lsum does so sentence by sentence and is the headline figure of papers. Precision is the
share of the output's words that are in the reference, recall the share of the reference's words that are in the
output, F their harmonic mean. Every value lies between 0 and 1 and higher is better; papers multiply by 100.
Where it misleads: it sees words, not meaning. A faithful paraphrase scores low; a summary with one wrong name or a
dropped "not" scores high; copying the first sentences of a news text is hard to beat. Between extractive systems
20 % of significant ROUGE-1 wins went against human judgement. Only compare figures made alike: the same outputs
score 39.16 as ROUGE-Lsum and 30.16 as ROUGE-L, and stemming alone moved ROUGE-1 from 43.85 to 45.91. The standard
tokenizer reads only the letters a–z and digits: for other scripts choose the tokenizer "unicode" or "character".
With several references the best one counts for each kind of ROUGE (option "max"), or their mean."""

NOTHING_READABLE = Absent(
    "not_applicable",
    "the reference has no word that the tokenizer reads (it reads a–z and digits): choose the tokenizer 'unicode'",
)

TITLES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum"}
UNITS = {
    "rouge1": "single words",
    "rouge2": "pairs of neighbouring words",
    "rougeL": "the longest common run of words, in order but with gaps",
    "rougeLsum": "the longest common runs, sentence by sentence: the headline ROUGE-L of papers",
}


def _parts() -> tuple[Part, ...]:
    """F, precision and recall of every kind, F under the plain name."""
    parts = []
    for kind in KINDS:
        title, unit = TITLES[kind], UNITS[kind]
        parts += [
            Part(kind, title, about=f"Overlap in {unit}: balance of precision and recall (F)."),
            Part(
                f"{kind}_precision", f"{title} precision", about=f"Share of the output found in the reference, {unit}."
            ),
            Part(f"{kind}_recall", f"{title} recall", about=f"Share of the reference found in the output, {unit}."),
        ]
    return tuple(parts)


PARTS = _parts()
NAMES = tuple(part.name for part in PARTS)
DEFAULTS: dict[str, Any] = {
    "stemmer": True,
    "sentences": "punkt",
    "references": "max",
    "tokenizer": "rouge-score",
}

_prepared: Memory[str] = Memory(REMEMBERED_BYTES)


def score(items: Sequence[Item], options: Options) -> list[dict[str, Value]]:
    """All twelve parts of every item, in order. Raises ValueError for an unknown option value."""
    options = {**DEFAULTS, **options}
    aggregate = choice(options, "references", tuple(AGGREGATIONS))
    reason = available(options)
    if reason:
        return [everywhere(Absent("not_computed", reason), PARTS) for _ in items]
    results: list[dict[str, Value]] = []
    pairs: list[tuple[str, str]] = []  # (reference, output)
    places: list[tuple[int, int]] = []  # (index in results, number of its pairs)
    for item in items:
        references = [text for text in usable(item) if _readable(text, options)] if item.text.strip() else []
        if references:
            pairs += [(text, item.text) for text in references]
            places.append((len(results), len(references)))
            results.append({})
        else:
            results.append(everywhere(absence(item) or NOTHING_READABLE, PARTS))
        if len(pairs) >= BATCH:
            _fill(results, pairs, places, options, aggregate)
    _fill(results, pairs, places, options, aggregate)
    return results


def _fill(
    results: list[dict[str, Value]],
    pairs: list[tuple[str, str]],
    places: list[tuple[int, int]],
    options: Options,
    aggregate: str,
) -> None:
    """Score the waiting pairs into their places, and empty both lists."""
    rows = _rows(pairs, options) if pairs else []
    begun = 0
    for index, count in places:
        row = rows[begun] if count == 1 else _combined(rows[begun : begun + count], aggregate)
        results[index] = dict(zip(NAMES, row, strict=True))
        begun += count
    pairs.clear()
    places.clear()


def _combined(rows: Sequence[tuple[float, ...]], aggregate: str) -> tuple[float, ...]:
    """One row of twelve figures from those against every reference.

    "max": for each kind the reference with the highest F, the first one among equals, gives all three numbers, as
    `score_multi` of rouge-score does; "mean": precision, recall and F are averaged each by itself.
    """
    if aggregate == "mean":
        return tuple(sum(column) / len(rows) for column in zip(*rows, strict=True))
    combined: tuple[float, ...] = ()
    for first in range(0, len(NAMES), 3):
        combined += max((row[first : first + 3] for row in rows), key=_f)
    return combined


def _f(figures: tuple[float, ...]) -> float:
    return figures[0]


def _rows(pairs: Sequence[tuple[str, str]], options: Options) -> list[tuple[float, ...]]:
    """The twelve figures of every (reference, output), as `NAMES` orders them."""
    if options["tokenizer"] == "rouge-score":
        return _rouge_counting.numbers(pairs, bool(options["stemmer"]), options["sentences"])
    outputs = {output: _one_sentence_a_line(output, options) for _, output in pairs}
    scores = _scorer(options["tokenizer"]).score_batch(
        [_remembered(reference, options) for reference, _ in pairs], [outputs[output] for _, output in pairs]
    )
    return [
        tuple(float(figure) for kind in KINDS for figure in (score[kind].fmeasure, *score[kind][:2]))
        for score in scores
    ]


@lru_cache(maxsize=2)
def _scorer(tokenizer: str) -> Any:
    """The scorer for other scripts. Sentences come as lines, so it splits none."""
    from rouge_score_rs.rouge_scorer import RougeScorer
    from rouge_score_rs.tokenizers import CharacterTokenizer, UnicodeTokenizer

    chosen = {"unicode": UnicodeTokenizer, "character": CharacterTokenizer}[tokenizer]()
    return RougeScorer(list(KINDS), tokenizer=chosen)  # type: ignore[no-untyped-call]


def _remembered(reference: str, options: Options) -> str:
    """The reference with one sentence a line: every candidate is compared with it."""
    if options["sentences"] == "newline":
        return reference
    prepared = _prepared.get(reference)
    if prepared is None:
        prepared = _one_sentence_a_line(reference, options)
        _prepared.keep(reference, prepared, 2 * len(reference) + 200)
    return prepared


def _one_sentence_a_line(text: str, options: Options) -> str:
    """What rouge-score takes as sentences: lines. A line end inside a sentence parts words no more than a blank."""
    if options["sentences"] == "newline":
        return text
    return "\n".join(sentence.replace("\n", " ") for sentence in cutting.sentences(text))


def _readable(text: str, options: Options) -> bool:
    """Whether the tokenizer finds a word at all. ROUGE of two equal Greek texts is 0 by the standard tokenizer."""
    if options["tokenizer"] == "rouge-score":
        return READABLE.search(text) is not None
    return any(letter.isalnum() for letter in text)


def signature(options: Options) -> dict[str, Any]:
    """Definition or library, stemming, tokenizer, sentence splitting, aggregation over references.

    The standard tokenizer names a definition, not a library: its numbers are those of rouge-score to the last bit, by
    whichever means they were computed. The others are what rouge-score-rs defines.
    """
    tokenizer = choice(options, "tokenizer", TOKENIZERS)
    split = choice(options, "sentences", ("punkt", "newline"))
    standard = tokenizer == "rouge-score"
    return {
        "definition": "rouge-score 0.1.2" if standard else f"rouge-score-rs {cutting.installed('rouge-score-rs')}",
        "stemmer": "porter" if options["stemmer"] and standard else "none",
        "tokenizer": tokenizer,
        "sentences": cutting.signature() if split == "punkt" else "newline",
        "references": choice(options, "references", tuple(AGGREGATIONS)),
    }


def available(options: Options) -> str:
    """An empty string, or what is missing. Raises ValueError for an unknown option value."""
    options = {**DEFAULTS, **options}
    tokenizer = choice(options, "tokenizer", TOKENIZERS)
    split = choice(options, "sentences", ("punkt", "newline"))
    fast = find_spec("rouge_score_rs")
    if not fast and not find_spec("rouge_score"):
        return "neither rouge-score-rs nor rouge-score is installed: install the `worker` extra"
    if not fast and tokenizer != "rouge-score":
        return f"the tokenizer {tokenizer!r} needs rouge-score-rs, which is not installed: install the `worker` extra"
    return cutting.missing() if split == "punkt" else ""


COST = (
    "About 0.07 ms of one CPU core for an output and a reference of 60 words, a third of that once the `fast` extra "
    "has compiled its kernel; two texts of 8,000 words take about 0.2 s, and a quarter of it with the kernel. Words "
    "and references are remembered, in at most 70 MB."
)
CHECKS = (
    Check(
        "One word exchanged, some left out",
        Item("The quick brown dog jumps on the log.", ("The quick brown fox jumps over the lazy dog",)),
        {"rouge1_precision": 6 / 8, "rouge1_recall": 6 / 9, "rougeL_precision": 5 / 8, "rougeL_recall": 5 / 9},
        source="the README of rouge-score",
    ),
    Check(
        "One sentence against two",
        Item("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", ("w1 w2 w3 w4 w5",)),
        {"rougeLsum_recall": 4 / 5, "rougeLsum_precision": 4 / 10},
        source="Lin 2004, section 3.2",
        options={"sentences": "newline"},
    ),
    Check(
        "The same sentences in another order",
        Item("Sales rose. Costs fell.", ("Costs fell. Sales rose.",)),
        {"rouge1": 1.0, "rouge2": 2 / 3, "rougeL": 0.5, "rougeLsum": 1.0},
        source="by hand: 4 of 4 words, 2 of 3 pairs, 2 of 4 words in order, every sentence whole",
    ),
    Check(
        "A paraphrase",
        EXAMPLE,
        {
            "rouge1": 0.5806451612903225,
            "rouge2": 0.0,
            "rougeL": 0.45161290322580644,
            "rougeLsum": 0.45161290322580644,
        },
        source="rouge-score 0.1.2 with stemmer and Punkt's sentences",
    ),
)

metric = Metric(
    name="rouge",
    label="ROUGE",
    parts=PARTS,
    about=" ".join(ABOUT.split()),
    score=score,
    signature=signature,
    defaults=DEFAULTS,
    available=available,
    cost=COST,
    checks=CHECKS,
)
