"""ROUGE: word overlap with a reference summary (Lin 2004, "ROUGE: a package for automatic evaluation of summaries").

Computed by `rouge-score-rs`, or by `rouge-score` where that has no wheel; both give the same bits as `rouge-score`
0.1.2, the implementation that papers quote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from evaluations.metrics import Absent, Item, Metric, Options, Part, Value
from evaluations.metrics import _sentences as cutting
from evaluations.metrics._admitting import AGGREGATIONS, absence, choice, everywhere, usable
from evaluations.metrics._remembering import Memory

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
TOKENIZERS = ("rouge-score", "unicode", "character")
BATCH = 512  # pairs handed over at once: bounds the memory of the results, not their values
REMEMBERED_BYTES = 64 * 2**20

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
NAMES = tuple((kind, f"{kind}_precision", f"{kind}_recall") for kind in KINDS)
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
    pairs: list[tuple[str, str]] = []  # (reference, output), each with one sentence a line
    places: list[tuple[int, int]] = []  # (index in results, number of its pairs)
    for item in items:
        absent = absence(item)
        references = [] if absent else [text for text in usable(item) if _readable(text, options)]
        if references:
            output = _one_sentence_a_line(item.text, options)
            pairs += [(_remembered(text, options), output) for text in references]
            places.append((len(results), len(references)))
            results.append({})
        else:
            results.append(everywhere(absent or NOTHING_READABLE, PARTS))
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
    scored = iter(_scores(pairs, options))
    for index, count in places:
        results[index] = _combined([next(scored) for _ in range(count)], aggregate)
    pairs.clear()
    places.clear()


def _combined(scores: Sequence[Mapping[str, Any]], aggregate: str) -> dict[str, Value]:
    """One dict of parts from the scores against every reference.

    "max": for each kind the reference with the highest F, the first one among equals, gives all three numbers, as
    `score_multi` of rouge-score does; "mean": precision, recall and F are averaged each by itself.
    """
    values: dict[str, Value] = {}
    for kind, precision, recall in NAMES:
        found = [score[kind] for score in scores]
        if aggregate == "max":
            best = found[0] if len(found) == 1 else max(found, key=lambda score: score.fmeasure)
            means = best.fmeasure, best.precision, best.recall
        else:
            rows = [(score.fmeasure, score.precision, score.recall) for score in found]
            means = tuple(sum(column) / len(found) for column in zip(*rows, strict=True))
        values[kind], values[precision], values[recall] = map(float, means)
    return values


def _scores(pairs: Sequence[tuple[str, str]], options: Options) -> list[Any]:
    """{kind: Score} for every (reference, output)."""
    if not pairs:
        return []
    scorer = _scorer(bool(options["stemmer"]), options["tokenizer"])
    if hasattr(scorer, "score_batch"):
        return list(scorer.score_batch([pair[0] for pair in pairs], [pair[1] for pair in pairs]))
    return [scorer.score(*pair) for pair in pairs]


@lru_cache(maxsize=6)
def _scorer(stemmer: bool, tokenizer: str) -> Any:
    """The fast scorer, or the one it equals. Sentences come as lines, so neither splits them."""
    if not find_spec("rouge_score_rs"):
        from rouge_score.rouge_scorer import RougeScorer

        return RougeScorer(list(KINDS), use_stemmer=stemmer)
    from rouge_score_rs.rouge_scorer import RougeScorer as FastScorer
    from rouge_score_rs.tokenizers import CharacterTokenizer, UnicodeTokenizer

    chosen = {"rouge-score": None, "unicode": UnicodeTokenizer(), "character": CharacterTokenizer()}[tokenizer]
    return FastScorer(list(KINDS), use_stemmer=stemmer, tokenizer=chosen)  # type: ignore[no-untyped-call]


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
        return any("a" <= letter <= "z" or "0" <= letter <= "9" for letter in text.lower())
    return any(letter.isalnum() for letter in text)


def signature(options: Options) -> dict[str, Any]:
    """Library and version, stemming, tokenizer, sentence splitting, aggregation over references."""
    library = "rouge-score-rs" if find_spec("rouge_score_rs") else "rouge-score"
    tokenizer = choice(options, "tokenizer", TOKENIZERS)
    split = choice(options, "sentences", ("punkt", "newline"))
    return {
        "library": library,
        "version": cutting.installed(library),
        "stemmer": "porter" if options["stemmer"] and tokenizer == "rouge-score" else "none",
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


metric = Metric(
    name="rouge",
    label="ROUGE",
    parts=PARTS,
    about=" ".join(ABOUT.split()),
    score=score,
    signature=signature,
    defaults=DEFAULTS,
    available=available,
)
