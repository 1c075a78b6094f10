"""chrF as sacrebleu computes it: runs of one to six characters shared with a reference (Popović 2015, 2017).

Equal to `sacrebleu.sentence_chrf` and `sacrebleu.corpus_chrf`, divided by 100. The runs are counted here, on arrays:
a reference is tabulated once for all candidates, in a tenth of the memory of sacrebleu's tables of strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluations.metrics import Absent, Check, Corpus, Counted, Item, Metric, Options, Part, Value
from evaluations.metrics._admitting import absence, everywhere, usable
from evaluations.metrics._remembering import Memory
from evaluations.metrics._sentences import installed

LIMITS = {"char_order": (1, 20), "word_order": (0, 10), "beta": (1, 10)}
REMEMBERED_BYTES = 128 * 2**20

ABOUT = """chrF was made for translation. It counts runs of one to six characters (blanks left out) that the output
shares with a reference: precision is the share of the output's runs found in the reference, recall the share of the
reference's runs found in the output, and chrF joins the two with recall weighing twice as much (the 2 in chrF2). With
the option "word_order" 2 single words and pairs of words count as well: that is chrF++. Values lie between 0 and 1
and higher is better; sacrebleu and papers print 100 times as much (0.55 here is their 55). "chrF" is the number of
one output; "chrF of the corpus" adds up the counts of all outputs first, as papers do. With several references each
output is compared with the one it is most like. It needs no tokenizer, works in every script and gives credit for
inflected forms ("vote", "voted"), so it is steadier than BLEU on short texts. Where it misleads: it is shown because
people ask for it and is of little use for summaries. Unrelated texts of one language share letters and syllables and
score well above 0 (around .2 on the few we tried), so only differences say anything; the weight on recall favours
longer outputs; meaning, names and a dropped "not" weigh no more than their letters. chrF and chrF++, or another beta,
are never comparable."""

PARTS = (Part("chrf", "chrF", about="Runs of characters shared with the reference it is most like; of one output."),)
DEFAULTS: dict[str, Any] = {"char_order": 6, "word_order": 0, "beta": 2, "lowercase": False, "whitespace": False}


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of one to `len(levels)` symbols of a sequence, each numbered by its place in its level.

    A run of n symbols is (number of its first n - 1 symbols) · `symbols` + its last symbol, with symbols numbered
    from 0: unique and within 64 bits for every text, which a packing of n characters would not be.
    Each level holds those keys, ascending, and how often each run occurs.
    """

    length: int
    symbols: int
    levels: tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...]

    @property
    def size(self) -> int:
        """Bytes, about."""
        return sum(keys.nbytes + counts.nbytes + 300 for keys, counts in self.levels)

    def shared(self, sequence: NDArray[np.int64]) -> list[int]:
        """How many runs of each order `sequence` has in common, a run as often as both have it.

        `sequence` is in the same numbers, -1 for a symbol that is not here.
        """
        found: list[int] = []
        starts = np.arange(len(sequence))  # of the runs that are here, and `numbers` what they are
        numbers = np.zeros(len(sequence), dtype=np.int64)
        for order, (keys, counts) in enumerate(self.levels, start=1):
            if order > 1:
                fitting = np.searchsorted(starts, len(sequence) - order, side="right")  # starts ascend
                starts, numbers = starts[:fitting], numbers[:fitting]
            if not len(keys) or not len(starts):
                return found + [0] * (len(self.levels) - len(found))
            last = sequence[starts + (order - 1)]
            wanted = numbers * self.symbols + last
            places = np.searchsorted(keys, wanted)
            places[places == len(keys)] = 0
            here = (keys[places] == wanted) & (last >= 0)
            starts, numbers = starts[here], places[here]
            found.append(int(np.minimum(np.bincount(numbers, minlength=len(keys)), counts).sum()))
        return found


def tabulate(sequence: NDArray[np.int64], symbols: int, orders: int) -> Runs:
    """The runs of one to `orders` symbols of a `sequence` of numbers below `symbols`."""
    levels = []
    numbers = np.zeros(len(sequence), dtype=np.int64)
    for order in range(1, orders + 1):
        ends = sequence[order - 1 :]
        keys, numbers, counts = np.unique(
            numbers[: len(ends)] * symbols + ends, return_inverse=True, return_counts=True
        )
        levels.append((keys, counts))
    return Runs(len(sequence), symbols, tuple(levels))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A reference: the runs of its characters (`alphabet`: its code points, ascending) and of its words."""

    alphabet: NDArray[np.uint32]
    characters: Runs
    vocabulary: dict[str, int]
    words: Runs


@dataclass(frozen=True, slots=True)
class Text:
    """An output or a reference as sacrebleu reads it: its code points and, for chrF++, its words."""

    points: NDArray[np.uint32]
    words: list[str]


_prepared: Memory[Prepared] = Memory(REMEMBERED_BYTES)


def score(items: Sequence[Item], options: Options) -> list[dict[str, Value]]:
    """{"chrf": value} for every item, in order. Raises ValueError for an option out of its limits.

    A value is `Counted` by three numbers for each order, characters before words: the runs of the output, those of
    the reference it is most like, those they share.
    """
    options = checked(options)
    reason = available(options)
    if reason:
        return [everywhere(Absent("not_computed", reason), PARTS) for _ in items]
    return [{"chrf": _value(item, options)} for item in items]


def _value(item: Item, options: Options) -> Value:
    """chrF with its counts, or why there is none. Among references with equal chrF the first one counts."""
    absent = absence(item)
    if absent and absent.state != "failed":
        return absent
    scorer = _scorer(*(options[name] for name in DEFAULTS))
    output = _read(item.text, scorer)
    best, counted = -1.0, []
    for reference in usable(item):
        counts = _counts(output, _remembered(reference, scorer))
        found = scorer._compute_f_score(counts)
        if found > best:
            best, counted = found, counts
    return replace(absent, counts=tuple(map(int, counted))) if absent else Counted(best / 100, counted)


def _counts(output: Text, reference: Prepared) -> list[int]:
    """[of the output, of the reference, shared] for each order of characters, then of words, in one list."""
    alphabet = reference.alphabet
    places = np.searchsorted(alphabet, output.points)
    places[places == len(alphabet)] = 0
    letters = np.where(alphabet[places] == output.points, places, -1)
    counts = _triples(letters, reference.characters)
    if reference.words.levels:
        words = np.array([reference.vocabulary.get(word, -1) for word in output.words], dtype=np.int64)
        counts += _triples(words, reference.words)
    return counts


def _triples(sequence: NDArray[np.int64], reference: Runs) -> list[int]:
    """The three counts of each order. As in sacrebleu, an output has no runs of an order that the reference lacks."""
    counts = []
    for order, shared in enumerate(reference.shared(sequence), start=1):
        of_reference = max(0, reference.length - order + 1)
        of_output = max(0, len(sequence) - order + 1) if of_reference else 0
        counts += [of_output, of_reference, shared]
    return counts


def _remembered(reference: str, scorer: Any) -> Prepared:
    """A tabulated reference, kept for the other candidates."""
    key = (reference, scorer.char_order, scorer.word_order, scorer.lowercase, scorer.whitespace)
    prepared = _prepared.get(key)
    if prepared is None:
        prepared = _tabulated(_read(reference, scorer), scorer)
        size = prepared.alphabet.nbytes + prepared.characters.size + prepared.words.size
        _prepared.keep(key, prepared, size + 160 * len(prepared.vocabulary) + 2 * len(reference) + 1000)
    return prepared


def _tabulated(text: Text, scorer: Any) -> Prepared:
    alphabet, letters = np.unique(text.points, return_inverse=True)
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(text.words))}
    words = np.array([vocabulary[word] for word in text.words], dtype=np.int64)
    return Prepared(
        alphabet,
        tabulate(letters, len(alphabet), scorer.char_order),
        vocabulary,
        tabulate(words, len(vocabulary), scorer.word_order),
    )


def _read(text: str, scorer: Any) -> Text:
    """What sacrebleu counts in a text: case, blanks and punctuation are treated as it does."""
    text = scorer._preprocess_segment(text)
    words = scorer._remove_punctuation(text) if scorer.word_order else []
    shown = text if scorer.whitespace else "".join(text.split())
    # Lone surrogates are characters of a Python string like any other.
    return Text(np.frombuffer(shown.encode("utf-32-le", "surrogatepass"), dtype="<u4"), words)


@lru_cache(maxsize=16)
def _scorer(char_order: int, word_order: int, beta: int, lowercase: bool, whitespace: bool) -> Any:
    """sacrebleu's chrF, which reads texts and turns counts into a value."""
    from sacrebleu.metrics.chrf import CHRF

    return CHRF(char_order, word_order, beta, lowercase, whitespace)


def corpus_value(totals: NDArray[np.int64], options: Options) -> NDArray[np.float64]:
    """chrF of corpora, 0 to 1, from the sums of their counts: shape (…, 3 · orders) gives shape (…).

    Equal to `sacrebleu.corpus_chrf`. Raises ValueError for an option out of its limits.
    """
    factor = checked(options)["beta"] ** 2
    counts = np.asarray(totals, dtype=np.float64)
    counts = counts.reshape(*counts.shape[:-1], -1, 3)
    output, reference, shared = counts[..., 0], counts[..., 1], counts[..., 2]
    counted = (output > 0) & (reference > 0)
    orders = np.maximum(counted.sum(axis=-1), 1)
    precision = np.divide(shared, output, out=np.zeros_like(shared), where=counted).sum(axis=-1) / orders
    recall = np.divide(shared, reference, out=np.zeros_like(shared), where=counted).sum(axis=-1) / orders
    weight = factor * precision + recall
    return np.divide((1 + factor) * precision * recall, weight, out=np.zeros_like(weight), where=weight > 0)


def checked(options: Options) -> dict[str, Any]:
    """All options, checked. Raises ValueError for one that is not a whole number within its limits."""
    options = {**DEFAULTS, **options}
    for name, (low, high) in LIMITS.items():
        value = options[name]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"the option {name!r} is {value!r}: give a whole number from {low} to {high}")
    return {**options, "lowercase": bool(options["lowercase"]), "whitespace": bool(options["whitespace"])}


def signature(options: Options) -> dict[str, Any]:
    """sacrebleu's own fields (version, case, effective order, orders, blanks), beta, and what several references do."""
    options = checked(options)
    return {
        "library": "sacrebleu",
        "version": installed("sacrebleu"),
        "case": "lc" if options["lowercase"] else "mixed",
        "eff": "yes",
        "nc": options["char_order"],
        "nw": options["word_order"],
        "space": "yes" if options["whitespace"] else "no",
        "beta": options["beta"],
        "references": "the one with the highest value",
    }


def available(options: Options) -> str:
    """An empty string, or what is missing. Raises ValueError for an option out of its limits."""
    checked(options)
    return "" if find_spec("sacrebleu") else "sacrebleu is not installed: install the `worker` extra"


CHECKS = (
    Check(
        "a shorter output: precision 1, recall the mean of 2/3 and 1/2",
        Item("ab", ("abc",)),
        {"chrf": 7 / 11},
        "by hand: 5 · P · R / (4 · P + R) with P = 1 and R = 7/12; runs of three are left out, the output has none",
    ),
    Check(
        "blanks do not count",
        Item("a b c", ("abc",)),
        {"chrf": 1.0},
        "sacrebleu's own tests, test/test_chrf.py",
        {"beta": 3},
        tolerance=1e-6,
    ),
    Check(
        "one of two characters, no pair",
        Item("aa", ("ab",)),
        {"chrf": 0.25},
        "sacrebleu's own tests, test/test_chrf.py",
        {"beta": 3},
        tolerance=1e-6,
    ),
    Check(
        "a whole sentence, blanks counted",
        Item(
            "risk assessment must be made of those who are qualified and expertise in the sector - these are the "
            "scientists .",
            (
                "risk assessment has to be undertaken by those who are qualified and expert in that area - that is "
                "the scientists .",
            ),
        ),
        {"chrf": 0.652414427},
        "sacrebleu's own tests, test/test_chrf.py",
        {"beta": 3, "whitespace": True},
        tolerance=1e-6,
    ),
)

metric = Metric(
    name="chrf",
    label="chrF (sacrebleu)",
    parts=PARTS,
    about=" ".join(ABOUT.split()),
    score=score,
    signature=signature,
    defaults=DEFAULTS,
    available=available,
    cost="0.15 to 0.3 ms for an output of 60 words and each reference on one core; 60 ms for 8,000 words.",
    checks=CHECKS,
    corpus=Corpus(
        Part(
            "chrf_corpus",
            "chrF of the corpus",
            about="As papers print it: from the counts of all outputs; one that failed counts as empty.",
        ),
        of="chrf",
        value=corpus_value,
    ),
)
