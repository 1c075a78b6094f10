"""Sampling: bounded, seeded, fair."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_app.sampling import Reservoir


def sampled(n, size, seed):
    reservoir = Reservoir(size, seed)
    for item in range(n):
        if (place := reservoir.place()) is not None:
            reservoir.keep(place, item)
    return reservoir


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 300), st.integers(1, 40), st.integers(0, 5))
def test_a_sample_has_its_size_and_no_item_twice(n, size, seed):
    reservoir = sampled(n, size, seed)
    assert len(set(reservoir.kept)) == len(reservoir.kept) == min(n, size)
    assert reservoir.is_sample == (n > size)
    assert reservoir.kept == sampled(n, size, seed).kept


def test_every_item_has_the_same_chance():
    counts = Counter(item for seed in range(600) for item in sampled(40, 10, seed).kept)
    assert all(90 <= counts[item] <= 220 for item in range(40)), "150 each, with 6 standard deviations of room"
