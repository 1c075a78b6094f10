"""Extractive summaries: which sentences of a document to keep. Pure functions over sentences, all deterministic.

TextRank: Mihalcea and Tarau 2004, "TextRank: Bringing Order into Texts", section 4 (sentence extraction).
LexRank: Erkan and Radev 2004, "LexRank: Graph-based Lexical Centrality as Salience", continuous variant.
LSA: Steinberger and Ježek 2004, "Using Latent Semantic Analysis in Text Summarization and Summary Evaluation", with
the weights that Steinberger, Poesio, Kabadjov and Ježek 2007 found best (a word is there or not, times its entropy).
Oracle: greedy selection by ROUGE-1 + ROUGE-2 F, after Nallapati, Zhai and Zhou 2017, "SummaRuNNer", section 3.

A ranking is all positions, the best first; `first` and `within` take its top and return positions in rising order, so
a summary keeps the order of its document.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

DAMPING = 0.85
CONVERGED = 1e-8
MOST_ROUNDS = 1000
MOST_SENTENCES = 4000
"""The rankers hold a few matrices of sentences × sentences: one of 4,000 is 128 MB."""
COLUMNS = 4096
"""Words that are multiplied at a time: the matrix of sentences × words is never held as a whole."""

_WORD = re.compile(r"[^\W_]+")

Matrix = NDArray[np.float64]


def words(sentence: str) -> list[str]:
    """Lower-case runs of letters and digits, in any script."""
    return _WORD.findall(sentence.lower())


def first(order: Sequence[int], count: int) -> list[int]:
    """The best `count` positions of a ranking, rising."""
    return sorted(order[:count])


def within(order: Sequence[int], sentences: Sequence[str], most: int) -> list[int]:
    """The best positions whose sentences have at most `most` words together (split at blanks), rising.

    It ends at the first sentence that would be too many, and takes the best one whatever its length: nothing at all
    is no summary.
    """
    taken, total = 0, 0
    for position in order:
        total += len(sentences[position].split())
        if taken and total > most:
            break
        taken += 1
    return sorted(order[:taken])


def lead(sentences: Sequence[str]) -> list[int]:
    """The first sentences first: hard to beat on news."""
    return list(range(len(sentences)))


def random_pick(sentences: Sequence[str], count: int, seed: int) -> list[int]:
    """`count` sentences by chance, in the order drawn: the floor that any method must clear."""
    chance = random.Random(seed)
    return chance.sample(range(len(sentences)), min(count, len(sentences)))


def longest(sentences: Sequence[str]) -> list[int]:
    """The sentences of most words first: whether a metric takes length for merit."""
    return sorted(range(len(sentences)), key=lambda position: -len(words(sentences[position])))


def textrank(sentences: Sequence[str]) -> list[int]:
    """By weighted PageRank over shared words."""
    return _best_first(rank(overlap(sentences)))


def lexrank(sentences: Sequence[str]) -> list[int]:
    """By weighted PageRank over tf-idf cosine."""
    return _best_first(rank(cosine(sentences)))


def lsa(sentences: Sequence[str]) -> list[int]:
    """By length in the space of the document's strongest topics."""
    return _best_first(salience(sentences))


def overlap(sentences: Sequence[str]) -> Matrix:
    """Similarity |Si ∩ Sj| / (log |Si| + log |Sj|), shape (n, n), zero on the diagonal.

    The common words are counted as types and the lengths as tokens. Two sentences of one word each would divide
    by zero: they get 0.
    """
    tokens = [words(sentence) for sentence in sentences]
    shared = _products([dict.fromkeys(each, 1.0) for each in tokens])
    logs = np.array([math.log(len(each)) if each else 0.0 for each in tokens])
    lengths = logs[:, None] + logs[None, :]
    similarity: Matrix = np.divide(shared, lengths, out=np.zeros_like(shared), where=lengths > 0)
    np.fill_diagonal(similarity, 0.0)
    return similarity


def cosine(sentences: Sequence[str]) -> Matrix:
    """Tf-idf cosine between sentences, shape (n, n); idf = log(n / n_w) within the document.

    The diagonal is 1, as the paper has it: every sentence is linked with itself. It is 0 where all words of a sentence
    are in every sentence.
    """
    counts = [Counter(words(sentence)) for sentence in sentences]
    holding = Counter(word for each in counts for word in each)
    weights = [{word: n * math.log(len(counts) / holding[word]) for word, n in each.items()} for each in counts]
    products = _products(weights)
    norms = np.sqrt(np.diagonal(products))
    scale = norms[:, None] * norms[None, :]
    similarity: Matrix = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    return similarity


def salience(sentences: Sequence[str]) -> Matrix:
    """sqrt(Σ_i v_ik² · σ_i²) of each sentence k, shape (n,), over the topics i with σ_i of half the largest or more.

    σ and v are singular values and right singular vectors of the matrix A of words × sentences. They come from the
    eigenvectors of AᵀA, which is small however many words there are: squaring costs digits only of the small σ, and
    those are left out.
    """
    products = _products(_entropy_weights([Counter(words(sentence)) for sentence in sentences]))
    squares, vectors = np.linalg.eigh(products)
    squares = np.maximum(squares, 0.0)
    # A little below a quarter of the square, so that rounding parts no two topics of one strength.
    kept = squares >= squares.max(initial=0.0) * (0.25 - 1e-9)
    scores: Matrix = np.sqrt((vectors[:, kept] ** 2) @ squares[kept])
    return scores


def _entropy_weights(counts: Sequence[Counter[str]]) -> list[dict[str, float]]:
    """1 + Σ_j p_j log p_j / log n for each word of each sentence, p_j its share of the word's occurrences: 1 for a word
    of one sentence, 0 for one that is spread evenly over all."""
    totals = Counter[str]()
    for each in counts:
        totals.update(each)
    spread: dict[str, float] = dict.fromkeys(totals, 0.0)
    for each in counts:
        for word, n in each.items():
            spread[word] += n / totals[word] * math.log(n / totals[word])
    scale = math.log(len(counts)) if len(counts) > 1 else 1.0
    return [{word: 1 + spread[word] / scale for word in each} for each in counts]


def rank(similarity: Matrix) -> Matrix:
    """Weighted PageRank WS(i) = (1 - d) + d · Σ_j w_ji / Σ_k w_jk · WS(j), by power iteration; shape (n,).

    Stops when no score moves by more than 1e-8. The map contracts by d, so this takes some 120 rounds at most.
    """
    total = similarity.sum(axis=1, keepdims=True)
    share = np.divide(similarity, total, out=np.zeros_like(similarity), where=total > 0)
    scores = np.ones(len(similarity))
    for _ in range(MOST_ROUNDS):
        following: Matrix = (1 - DAMPING) + DAMPING * (scores @ share)
        if np.abs(following - scores).max(initial=0.0) < CONVERGED:
            return following
        scores = following
    return scores


def oracle(sentences: Sequence[str], references: Sequence[str], count: int | None = None) -> list[int]:
    """The sentences that greedily raise ROUGE-1 F + ROUGE-2 F against the best reference, at most `count`.

    Stops when no sentence raises the score. It reads the reference, so it bounds extraction and is no method.
    """
    tokens = [words(sentence) for sentence in sentences]
    targets = [words(reference) for reference in references]
    chosen: list[int] = []
    best = 0.0
    while count is None or len(chosen) < count:
        scored = [
            (_rouge(_joined(tokens, [*chosen, position]), targets), -position)
            for position in range(len(tokens))
            if position not in chosen and tokens[position]
        ]
        score, position = max(scored, default=(0.0, 0))
        if score <= best:
            break
        best = score
        chosen.append(-position)
    return sorted(chosen)


def _joined(tokens: Sequence[Sequence[str]], positions: Sequence[int]) -> list[str]:
    return [word for position in sorted(positions) for word in tokens[position]]


def _rouge(candidate: Sequence[str], targets: Sequence[Sequence[str]]) -> float:
    return max((_f(candidate, target, 1) + _f(candidate, target, 2) for target in targets), default=0.0)


def _f(candidate: Sequence[str], target: Sequence[str], size: int) -> float:
    """F1 of clipped n-gram counts, 0 to 1."""
    ours, theirs = _grams(candidate, size), _grams(target, size)
    hits = (ours & theirs).total()
    return 2 * hits / (ours.total() + theirs.total()) if hits else 0.0


def _grams(tokens: Sequence[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1))


def _products(weights: Sequence[Mapping[str, float]]) -> Matrix:
    """W · Wᵀ of the matrix W of sentences × words, shape (n, n)."""
    columns: dict[str, int] = {}
    for each in weights:
        for word in sorted(each):
            columns.setdefault(word, len(columns))
    products = np.zeros((len(weights), len(weights)))
    block = np.zeros((len(weights), min(COLUMNS, len(columns))))
    for left in range(0, len(columns), COLUMNS):
        block[:] = 0.0
        for row, each in enumerate(weights):
            for word, weight in each.items():
                if left <= columns[word] < left + COLUMNS:
                    block[row, columns[word] - left] = weight
        products += block @ block.T
    return products


def _best_first(scores: Matrix) -> list[int]:
    """Positions from the highest score to the lowest; equal scores (to 6 digits, so that sums in another order agree)
    go to the earlier sentence."""
    return [int(position) for position in np.argsort(-np.round(scores, 6), kind="stable")]
