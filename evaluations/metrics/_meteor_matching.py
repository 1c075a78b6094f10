"""METEOR's alignment, for a whole batch of pairs at once.

NLTK goes through the output from its last word to the first, and every word takes the last free partner in the
reference. So of a word that is there several times, the last one is paired with the last one, the one before with the
one before: sorting both sides by (pair, word, place) shows all partners of a batch without a step for every word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluations.metrics._chunks import joined

Rows = NDArray[np.int32]
Numbers = NDArray[np.int64]


def matches(
    pairs: Sequence[tuple[Rows, Rows]],
    stem_of: Rows,
    stem: Callable[[int], str],
    synonyms: Callable[[int], frozenset[str]],
) -> list[tuple[int, int]]:
    """(aligned words, chunks they stand in) for every (reference, output), both as numbers of words.

    A chunk here is Lavie and Agarwal's: a run of aligned words that are neighbours in both texts. Three rounds, each
    over what the one before has left: equal words, equal stems, synonyms. As in NLTK, the third round looks up the
    synonyms of *stems*: that is its published behaviour.
    """
    reference, reference_bounds = joined(reference for reference, _ in pairs)
    output, output_bounds = joined(output for _, output in pairs)
    owners = _owners(output_bounds)
    partner = np.full(len(output), -1, np.int64)  # by place in the output: the place in the reference
    left, free = np.arange(len(output)), np.arange(len(reference))
    reference_keys, output_keys = _owners(reference_bounds) << 32, owners << 32
    for one, other in ((output, reference), (stem_of[output], stem_of[reference])):
        _pair_last(output_keys[left] | one[left], reference_keys[free] | other[free], left, free, partner)
        left = np.flatnonzero(partner < 0)
        free = _complement(partner[partner >= 0], len(reference))
    stems = stem_of[output[left]], stem_of[reference[free]]
    _pair_synonyms(left, stems[0], output_bounds, free, stems[1], reference_bounds, stem, synonyms, partner)
    return _counted(partner, owners, len(pairs))


def _owners(bounds: Numbers) -> Numbers:
    """The pair of every place."""
    return np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))


def _complement(taken: Numbers, size: int) -> Numbers:
    free = np.ones(size, bool)
    free[taken] = False
    return np.flatnonzero(free)


def _pair_last(output: Numbers, reference: Numbers, left: Numbers, free: Numbers, partner: Numbers) -> None:
    """Pair the places `left` and `free` whose keys are equal in `partner`, of each key as many as both have."""
    keys, stops, counts, order = _groups(output)
    others, other_stops, other_counts, other_order = _groups(reference)
    if not len(keys) or not len(others):
        return
    where = np.minimum(np.searchsorted(others, keys), len(others) - 1)
    common = others[where] == keys
    where = where[common]
    both = np.minimum(counts[common], other_counts[where])
    back = 1 + np.arange(int(both.sum())) - np.repeat(np.cumsum(both) - both, both)  # the last, the one before …
    mine = order[np.repeat(stops[common], both) - back]
    theirs = other_order[np.repeat(other_stops[where], both) - back]
    partner[left[mine]] = free[theirs]


def _groups(keys: Numbers) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """(distinct keys, where each one's places end in the order, how many they are, the order): places ascend."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    stops = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, len(keys)) if len(keys) else np.zeros(0, int)
    return ordered[stops - 1], stops, np.diff(stops, prepend=0), order


def _pair_synonyms(
    left: Numbers, output: Rows, output_bounds: Numbers, free: Numbers, reference: Rows, reference_bounds: Numbers,
    stem: Callable[[int], str], synonyms: Callable[[int], frozenset[str]], partner: Numbers,
) -> None:  # fmt: skip
    """Pair stems with synonyms of theirs in `partner`: the last free one of any synonym."""
    begins, other_begins = (
        np.searchsorted(left, output_bounds).tolist(),
        np.searchsorted(free, reference_bounds).tolist(),
    )
    names, stems = list(map(stem, reference.tolist())), output.tolist()
    for pair in range(len(begins) - 1):
        wanted = set(names[other_begins[pair] : other_begins[pair + 1]])
        if not wanted:
            continue
        places: dict[str, list[int]] = {}
        for at in range(begins[pair + 1] - 1, begins[pair] - 1, -1):
            found = synonyms(stems[at])
            if not found or found.isdisjoint(wanted):
                continue
            if not places:
                for place in range(other_begins[pair], other_begins[pair + 1]):
                    places.setdefault(names[place], []).append(place)
            chosen = max(wanted & found, key=lambda name: places[name][-1])
            partner[left[at]] = free[places[chosen].pop()]
            if not places[chosen]:
                wanted.remove(chosen)


def _counted(partner: Numbers, owners: Numbers, pairs: int) -> list[tuple[int, int]]:
    places = np.flatnonzero(partner >= 0)
    partners, owner = partner[places], owners[places]
    begins = np.ones(len(places), bool)
    begins[1:] = (np.diff(places) != 1) | (np.diff(partners) != 1) | (owner[1:] != owner[:-1])
    found = np.bincount(owner, minlength=pairs).tolist()
    chunks = np.bincount(owner[begins], minlength=pairs).tolist()
    return list(zip(found, chunks, strict=True))
