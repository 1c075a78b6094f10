"""Extractive summaries: which sentences of a document to keep. Pure functions over sentences, all deterministic.

TextRank: Mihalcea and Tarau 2004, "TextRank: Bringing Order into Texts", section 4 (sentence extraction).
LexRank: Erkan and Radev 2004, "LexRank: Graph-based Lexical Centrality as Salience", continuous variant.
Oracle: greedy selection by ROUGE-1 + ROUGE-2 F, after Nallapati, Zhai and Zhou 2017, "SummaRuNNer", section 3.

Every function returns positions in rising order, so a summary keeps the order of its document.
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
"""The rankers hold a sentences × sentences matrix: 4,000 are 128 MB."""

_WORD = re.compile(r"[^\W_]+")

Matrix = NDArray[np.float64]


def words(sentence: str) -> list[str]:
    """Lower-case runs of letters and digits, in any script."""
    return _WORD.findall(sentence.lower())


def lead(sentences: Sequence[str], count: int) -> list[int]:
    """The first `count` sentences: hard to beat on news."""
    return list(range(min(count, len(sentences))))


def random_pick(sentences: Sequence[str], count: int, seed: int) -> list[int]:
    """`count` sentences by chance: the floor that any method must clear."""
    chance = random.Random(seed)
    return sorted(chance.sample(range(len(sentences)), min(count, len(sentences))))


def textrank(sentences: Sequence[str], count: int) -> list[int]:
    """The `count` sentences of highest weighted PageRank over shared words."""
    return _best(rank(overlap(sentences)), count)


def lexrank(sentences: Sequence[str], count: int) -> list[int]:
    """The `count` sentences of highest weighted PageRank over tf-idf cosine."""
    return _best(rank(cosine(sentences)), count)


def overlap(sentences: Sequence[str]) -> Matrix:
    """Similarity |Si ∩ Sj| / (log |Si| + log |Sj|), shape (n, n), zero on the diagonal.

    The common words are counted as types and the lengths as tokens. Two sentences of one word each would divide
    by zero: they get 0.
    """
    tokens = [words(sentence) for sentence in sentences]
    shared = _products(_incidence([Counter(set(each)) for each in tokens]))
    logs = np.array([math.log(len(each)) if each else 0.0 for each in tokens])
    lengths = logs[:, None] + logs[None, :]
    similarity: Matrix = np.divide(shared, lengths, out=np.zeros_like(shared), where=lengths > 0)
    np.fill_diagonal(similarity, 0.0)
    return similarity


def cosine(sentences: Sequence[str]) -> Matrix:
    """Tf-idf cosine between sentences, shape (n, n), zero on the diagonal; idf = log(n / n_w) within the document."""
    counts = [Counter(words(sentence)) for sentence in sentences]
    holding = Counter(word for each in counts for word in each)
    weights = [{word: n * math.log(len(counts) / holding[word]) for word, n in each.items()} for each in counts]
    products = _products(_incidence(weights))
    norms = np.sqrt(np.diagonal(products))
    scale = norms[:, None] * norms[None, :]
    similarity: Matrix = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    np.fill_diagonal(similarity, 0.0)
    return similarity


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


def _incidence(weights: Sequence[Mapping[str, float]]) -> Matrix:
    """Sentences × words, shape (n, v); words in order of appearance."""
    columns: dict[str, int] = {}
    for each in weights:
        for word in sorted(each):
            columns.setdefault(word, len(columns))
    matrix = np.zeros((len(weights), len(columns)))
    for row, each in enumerate(weights):
        for word, weight in each.items():
            matrix[row, columns[word]] = weight
    return matrix


def _products(matrix: Matrix) -> Matrix:
    products: Matrix = matrix @ matrix.T
    return products


def _best(scores: Matrix, count: int) -> list[int]:
    """Positions of the highest scores; equal scores (to 6 digits, so that sums in another order agree) go to the
    earlier sentence."""
    order = np.argsort(-np.round(scores, 6), kind="stable")
    return sorted(int(position) for position in order[:count])
