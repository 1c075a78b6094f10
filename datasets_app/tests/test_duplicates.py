"""Duplicates: the same, and nearly the same."""

import random
from array import array

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_app.duplicates import NearDuplicates, jaccard, repeated, run_hashes, text_hash

WORDS = [f"word{n}" for n in range(3000)]


def document(seed, n=120):
    return " ".join(random.Random(seed).choices(WORDS, k=n))


def near(texts, **how):
    found = NearDuplicates(**how)
    for index, text in enumerate(texts):
        found.add(index, text, len(text.split()))
    return found.found()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 8)))
def test_a_repeated_row_names_the_first(values):
    later, of = repeated(array("Q", [text_hash(str(value)) for value in values]))
    expected = [(row, values.index(value)) for row, value in enumerate(values) if values.index(value) < row]
    assert list(zip(later.tolist(), of.tolist(), strict=True)) == expected


def runs(text):
    cut = text.casefold().split()
    return {tuple(cut[start : start + 5]) for start in range(len(cut) - 4)}


TEXTS = st.lists(st.lists(st.sampled_from("abäЖ漢Z"), max_size=14).map(" ".join), min_size=1, max_size=6)


@settings(deadline=None, max_examples=100)
@given(TEXTS)
def test_equal_runs_have_equal_hashes_and_others_not(texts):
    hashes, sizes = run_hashes(texts)
    ends = np.cumsum(sizes)
    mine = [hashes[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    for text, found in zip(texts, mine, strict=True):
        assert len(found) == max(0, len(text.split()) - 4)
        assert len(set(found.tolist())) == len(runs(text))
    for text, found in zip(texts, mine, strict=True):
        for other, theirs in zip(texts, mine, strict=True):
            if runs(text) and runs(other):
                both = runs(text) & runs(other)
                assert jaccard(found, theirs) == pytest.approx(len(both) / len(runs(text) | runs(other)))


def test_a_text_with_a_few_changed_words_is_nearly_the_same():
    changed = document(1).split()
    changed[10] = changed[70] = "amber"
    count, found = near([document(0), document(1), document(2), " ".join(changed), document(3)])
    assert count == 5
    assert [(one.row, one.of) for one in found] == [(3, 1)]
    assert 0.8 <= found[0].similarity < 1


def test_half_of_a_text_is_not():
    assert near([document(1), " ".join(document(1).split()[:60] + document(2).split()[:60])])[1] == []


def test_texts_that_share_a_heading_are_not():
    heading = " ".join(WORDS[:30])
    assert near([f"{heading} {document(seed)}" for seed in range(200)])[1] == []


def test_what_is_counted_is_what_comparing_all_pairs_counts():
    rng, texts = random.Random(5), []
    for number in range(300):
        if number % 3 == 2:
            changed = rng.choice(texts).split()
            for _ in range(rng.choice([0, 1, 2, 3, 4, 6])):
                changed[rng.randrange(len(changed))] = f"new{rng.random()}"
            texts.append(" ".join(changed))
        else:
            texts.append(document(number))
    sets = [runs(text) for text in texts]
    similar = {
        row for row in range(300) for of in range(row)
        if len(sets[row] & sets[of]) >= 0.8 * len(sets[row] | sets[of])
    }  # fmt: skip
    found = {one.row for one in near(texts)[1]}
    assert found <= similar
    assert len(found) >= 0.95 * len(similar)
    assert len(similar) > 40


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 20_000), st.sampled_from([1 << 10, 1 << 12, 1 << 20]))
def test_in_whatever_company_texts_are_hashed_the_same_is_found(batch, kept_runs):
    texts = [document(seed % 25) + (" extra" if seed % 2 else "") for seed in range(40)]
    assert near(texts, batch=batch, kept_runs=kept_runs) == near(texts, kept_runs=kept_runs)


def test_what_does_not_fit_is_a_sample_that_keeps_near_duplicates_together():
    texts = [document(seed // 2) + (" amber" if seed % 2 else "") for seed in range(1200)]
    found = NearDuplicates(kept_runs=40_000, batch=1 << 12)
    for index, text in enumerate(texts):
        found.add(index, text, 120)
    count, pairs = found.found()
    assert found.is_sample
    assert 40 <= count <= 400
    assert 0.4 <= len(pairs) / count <= 0.5, "half of all are nearly the same as an earlier one"


def test_scripts_without_blanks_are_compared_by_characters():
    text = "委员会星期一决定由于需要翻修河上的桥梁这条街道将一直关闭到春天居民可以申请通行证" * 3
    count, found = near([text, text.replace("春天", "夏天", 1), "другой текст из пяти слов"])
    assert count == 3
    assert [(one.row, one.of) for one in found] == [(1, 0)]


def test_texts_of_a_few_words_are_left_out():
    assert near(["", "one two three four", "one two three four"]) == (0, [])
