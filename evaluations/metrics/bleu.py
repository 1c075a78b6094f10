"""BLEU as sacrebleu computes it: runs of one to four words shared with references (Papineni et al. 2002; Post 2018).

An output's number is sentence BLEU with effective order; the corpus's is the BLEU of translation papers, made of the
summed counts. Equal to `sacrebleu.sentence_bleu` and `sacrebleu.corpus_bleu`, divided by 100.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluations.metrics import Absent, Check, Corpus, Counted, Item, Metric, Options, Part, Value
from evaluations.metrics._admitting import absence, choice, everywhere, usable
from evaluations.metrics._remembering import Memory
from evaluations.metrics._sentences import installed

ORDER = 4  # the longest run of words
TOKENIZERS = ("13a", "intl", "char", "zh", "none")
SMOOTHINGS = ("exp", "floor", "add-k", "none")
FLOOR, ADDED = 0.1, 1  # sacrebleu's defaults for "floor" and "add-k"
REMEMBERED_BYTES = 128 * 2**20
BYTES_PER_RUN = 120  # a tuple of words and its place in a dictionary, measured
REMEMBERED_WORDS = 65_536
LONGEST_WORD = 64  # a longer one is cut each time: the memory stays bounded

ABOUT = """BLEU was made for translation. It counts which share of the output's single words and runs of two, three and
four words also stand in a reference, takes the geometric mean of the four shares, and marks down an output that is
shorter than the reference (the brevity penalty). It is shown because people ask for it: for summaries it is of little
use. Values lie between 0 and 1 and higher is better; sacrebleu and papers print 100 times as much (0.3 here is their
30). There are two numbers. "BLEU" is that of one output: where no run of four words is shared its share is not 0 but a
small assumed one (option "smoothing"), so a short text's value says little, and their mean is not what papers print.
"BLEU of the corpus" adds up the counts of all outputs first and is the figure of papers. All references of a document
are used jointly: a run counts when any of them has it, and the reference closest in length sets the penalty.
Where it misleads: it asks only how much of the output is in the reference, hardly whether anything is missing; a
faithful summary in other words scores near 0, one with a wrong name or a dropped "not" scores high; more references
mean higher values. Never compare figures made with another tokenizer: on one published pair of sentences the
tokenizer "none" gives .073, the standard "13a" .085 and "char" .409. Choose "zh" or "char" for Chinese, "char" for
scripts without blanks, "intl" for marks other than English ones."""

PARTS = (Part("bleu", "BLEU", about="Runs of one to four words shared with the references; of one output, smoothed."),)
DEFAULTS: dict[str, Any] = {"tokenizer": "13a", "lowercase": False, "smoothing": "exp"}
NOTHING_READABLE = Absent(
    "not_applicable", "the reference has no word that the tokenizer reads: choose another tokenizer"
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """All references of a document: the words of each, and how often one of them has each run of 1, 2, 3, 4 words."""

    lengths: list[int]
    runs: tuple[dict[tuple[str, ...], int], ...]


_prepared: Memory[Prepared] = Memory(REMEMBERED_BYTES)


def score(items: Sequence[Item], options: Options) -> list[dict[str, Value]]:
    """{"bleu": value} for every item, in order. Raises ValueError for an unknown option value.

    A value is `Counted` by sacrebleu's ten numbers: the words of the output, those of the reference closest in length,
    the shared runs of one to four words, the output's runs of one to four words.
    """
    options = {**DEFAULTS, **options}
    reason = available(options)
    if reason:
        return [everywhere(Absent("not_computed", reason), PARTS) for _ in items]
    scorer = _scorer(options["tokenizer"], bool(options["lowercase"]), options["smoothing"])
    return [{"bleu": _value(item, scorer)} for item in items]


def _value(item: Item, scorer: Any) -> Value:
    """Sentence BLEU with its counts, or why there is none."""
    absent = absence(item)
    if absent and absent.state != "failed":
        return absent
    references = _remembered(tuple(usable(item)), scorer)
    if not any(references.lengths):
        return NOTHING_READABLE
    if absent:  # as sacrebleu counts an empty output: of no words, against the reference closest to that
        return replace(absent, counts=(0, scorer._get_closest_ref_len(0, references.lengths), *[0] * (2 * ORDER)))
    words = scorer._preprocess_segment(item.text).split()
    closest = scorer._get_closest_ref_len(len(words), references.lengths)
    totals = [max(0, len(words) - order + 1) for order in range(1, ORDER + 1)]
    counts = [len(words), closest, *_shared(words, references), *totals]
    value = scorer._compute_score_from_stats(counts).score / 100
    return Counted(min(value, 1.0), counts)  # sacrebleu gives a perfect copy 100.00000000000004


def _shared(words: list[str], references: Prepared) -> list[int]:
    """How many runs of each order are in the references, a run at most as often as one of them has it.

    The same as sacrebleu's loop over all runs of the output, in half its time: only shared runs are counted.
    """
    found = []
    for order, allowed in enumerate(references.runs, start=1):
        here = Counter(filter(allowed.__contains__, zip(*(words[start:] for start in range(order)), strict=False)))
        if not here:  # then no longer run is shared either
            break
        found.append(sum(map(min, here.values(), map(allowed.__getitem__, here))))
    return found + [0] * (ORDER - len(found))


def _remembered(references: tuple[str, ...], scorer: Any) -> Prepared:
    """The prepared references of a document, kept for the other candidates."""
    key = (references, scorer.tokenizer_signature, scorer.lowercase)
    prepared = _prepared.get(key)
    if prepared is None:
        found = scorer._extract_reference_info([scorer._preprocess_segment(text) for text in references])
        runs: tuple[dict[tuple[str, ...], int], ...] = tuple({} for _ in range(ORDER))
        for run, count in found["ref_ngrams"].items():
            runs[len(run) - 1][run] = count
        prepared = Prepared(found["ref_lens"], runs)
        size = BYTES_PER_RUN * len(found["ref_ngrams"]) + sum(4 * len(text) + 200 for text in references)
        _prepared.keep(key, prepared, size + 1000)
    return prepared


@lru_cache(maxsize=16)
def _scorer(tokenizer: str, lowercase: bool, smoothing: str) -> Any:
    """sacrebleu's BLEU for single outputs."""
    from sacrebleu.metrics.bleu import BLEU

    scorer = BLEU(
        lowercase=lowercase, tokenize=tokenizer, smooth_method=smoothing, effective_order=True, max_ngram_order=ORDER
    )
    scorer.tokenizer = _tokenizer(tokenizer)
    return scorer


@lru_cache(maxsize=len(TOKENIZERS))
def _tokenizer(name: str) -> Callable[[str], str]:
    """sacrebleu's tokenizer, which remembers no texts; "13a" is 5 times as fast.

    What stands between blanks is cut once and remembered: the patterns of "13a" never look past a blank, and it puts
    one at both ends of the text. The tests compare it with the original on any Unicode.
    """
    from sacrebleu.metrics.bleu import BLEU

    tokenizer = BLEU(tokenize=name).tokenizer
    forgetful = _forgetful(tokenizer)
    if name == "13a":
        cut = tokenizer._post_tokenizer
        remembered = lru_cache(maxsize=REMEMBERED_WORDS)(lambda word: cut(f" {word} "))
        tokenizer._post_tokenizer = lambda text: " ".join(
            [remembered(word) if len(word) <= LONGEST_WORD else cut(f" {word} ") for word in text.split()]
        )
    return forgetful


def _forgetful(tokenizer: Any) -> Callable[[str], str]:
    """The tokenizer without its caches, which hold the last 65,536 texts of any length for as long as the process."""
    if hasattr(tokenizer, "_post_tokenizer"):
        tokenizer._post_tokenizer = _forgetful(tokenizer._post_tokenizer)
    plain = getattr(type(tokenizer).__call__, "__wrapped__", None)
    found: Callable[[str], str] = partial(plain, tokenizer) if plain else tokenizer
    return found


def corpus_value(totals: NDArray[np.int64], options: Options) -> NDArray[np.float64]:
    """BLEU of corpora, 0 to 1, from the sums of their counts: shape (…, 10) gives shape (…).

    Smoothed like single outputs (it rarely matters), without effective order: equal to `sacrebleu.corpus_bleu`.
    Raises ValueError for an unknown smoothing.
    """
    smoothing = choice({**DEFAULTS, **options}, "smoothing", SMOOTHINGS)
    output, reference = (np.asarray(totals[..., place], dtype=np.float64) for place in (0, 1))
    shared = np.array(totals[..., 2 : 2 + ORDER], dtype=np.float64)
    runs = np.array(totals[..., 2 + ORDER :], dtype=np.float64)
    scorable = shared.any(axis=-1)
    if smoothing == "add-k":
        shared[..., 1:] += ADDED
        runs[..., 1:] += ADDED
    elif smoothing == "floor":
        shared[shared == 0] = FLOOR
    elif smoothing == "exp":
        missing = shared == 0
        shared = np.where(missing, 0.5 ** np.cumsum(missing, axis=-1), shared)
    scorable &= (shared > 0).all(axis=-1) & (runs > 0).all(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):  # what is not scorable
        mean = np.exp(np.log(shared / runs).mean(axis=-1))
        penalty = np.where(output < reference, np.exp(1 - reference / output), 1.0)
        return np.where(scorable, penalty * mean, 0.0)


def signature(options: Options) -> dict[str, Any]:
    """sacrebleu's own fields (version, case, effective order, tokenizer, smoothing), and what several references do."""
    options = {**DEFAULTS, **options}
    smoothing = choice(options, "smoothing", SMOOTHINGS)
    parameter = {"floor": f"[{FLOOR:.2f}]", "add-k": f"[{ADDED:.2f}]"}.get(smoothing, "")
    return {
        "library": "sacrebleu",
        "version": installed("sacrebleu"),
        "case": "lc" if options["lowercase"] else "mixed",
        "eff": "yes",
        "corpus_eff": "no",
        "tok": choice(options, "tokenizer", TOKENIZERS),
        "smooth": f"{smoothing}{parameter}",
        "order": ORDER,
        "references": "jointly, closest length",
    }


def available(options: Options) -> str:
    """An empty string, or what is missing. Raises ValueError for an unknown option value."""
    options = {**DEFAULTS, **options}
    choice(options, "tokenizer", TOKENIZERS)
    choice(options, "smoothing", SMOOTHINGS)
    return "" if find_spec("sacrebleu") else "sacrebleu is not installed: install the `worker` extra"


SUGAR = Item(
    "Producția de zahăr primă va fi exprimată în ceea ce privește zahărul alb;",
    ("producţia de zahăr brut se exprimă în zahăr alb;",),
)
SACREBLEU = "sacrebleu's own tests, test/test_sentence_bleu.py"


def _published(title: str, expected: float, **options: str | bool) -> Check:
    """A value that sacrebleu's tests give for one pair, there times 100 and within .001."""
    return Check(title, SUGAR, {"bleu": expected / 100}, SACREBLEU, options, tolerance=1e-5)


CHECKS = (
    Check(
        "five of six words, three of five pairs, two of four triples, one of three fours",
        Item("the cat sat on the mat", ("the cat sat on a mat",)),
        {"bleu": (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** (1 / 4)},
        "by hand: the fourth root of 5/6 · 3/5 · 2/4 · 1/3 = 1/12",
    ),
    _published("the standard tokenizer", 8.493),
    _published("no tokenizer", 7.347, tokenizer="none"),
    _published("characters as words", 40.8759, tokenizer="char"),
    _published("characters in lower case", 42.0267, tokenizer="char", lowercase=True),
    _published("smoothing by a floor", 4.51688, smoothing="floor"),
    _published("smoothing by adding one", 14.882, smoothing="add-k"),
    _published("no smoothing", 0.0, smoothing="none"),
)

metric = Metric(
    name="bleu",
    label="BLEU (sacrebleu)",
    parts=PARTS,
    about=" ".join(ABOUT.split()),
    score=score,
    signature=signature,
    defaults=DEFAULTS,
    available=available,
    cost="0.1 to 0.15 ms for an output of 60 words on one core: 100,000 outputs in 10 to 15 s; 0.1 s for 8,000 words.",
    checks=CHECKS,
    corpus=Corpus(
        Part(
            "bleu_corpus",
            "BLEU of the corpus",
            about="As papers print it: from the counts of all outputs; one that failed counts as empty.",
        ),
        of="bleu",
        value=corpus_value,
    ),
)
