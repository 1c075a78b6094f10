"""Packing: budgets, out-of-memory and poison rows; every row is answered once."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from models_registry.packing import Budget, pack, padding_of, run_packed
from models_registry.providers import Output


@dataclass(frozen=True)
class Row:
    key: int
    length: int


def rows_of(lengths):
    return [Row(key, length) for key, length in enumerate(lengths)]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 300), max_size=40), st.integers(1, 1000))
def test_batches_hold_to_the_budget_and_lose_nothing(lengths, tokens):
    batches = pack(rows_of(lengths), Budget(tokens))
    assert sorted(row.key for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * batch[0].length <= tokens for batch in batches)
    assert [row.length for batch in batches for row in batch] == sorted(lengths, reverse=True)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=30),
    st.sets(st.integers(0, 29)),
    st.integers(1, 400),
    st.integers(1, 400),
)
def test_poison_and_memory_cost_only_their_own_rows(lengths, poison, budget, memory):
    started = []

    def forward(batch):
        assert started[-1] == [row.key for row in batch]
        if len(batch) * max(row.length for row in batch) > memory:
            raise MemoryError
        if any(row.key in poison for row in batch):
            raise RuntimeError("poison")
        return [Output(row.key, "ok", text="x") for row in batch]

    outputs = [o for b in run_packed(rows_of(lengths), Budget(budget), forward, starting=started.append) for o in b]
    assert sorted(output.key for output in outputs) == list(range(len(lengths)))
    for output in outputs:
        expected = "oom" if lengths[output.key] > memory else "model_error" if output.key in poison else ""
        assert output.error_code == expected


def test_what_memory_taught_is_kept():
    tried = []

    def forward(batch):
        tried.append(len(batch))
        if len(batch) > 2:
            raise MemoryError
        return [Output(row.key, "ok", text="x") for row in batch]

    budget = Budget(80)
    list(run_packed(rows_of([10] * 24), budget, forward))
    assert tried[:3] == [8, 4, 2]
    assert set(tried[2:]) == {2}
    assert budget.tokens == 20


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 300), max_size=40), st.floats(0, 1))
def test_no_batch_is_emptier_than_its_budget_allows(lengths, padding):
    batches = pack(rows_of(lengths), Budget(2000, padding=padding))
    assert sorted(row.key for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(padding_of([batch]) <= padding + 1e-9 for batch in batches)


def test_a_tenth_of_padding_still_makes_wide_batches_of_mixed_documents():
    lengths = [100 + 800 * step // 63 for step in range(64)]
    loose, tight = (pack(rows_of(lengths), Budget(4096, padding=padding)) for padding in (1.0, 0.10))
    assert padding_of(tight) < padding_of(loose) < 0.25
    assert padding_of(tight) <= 0.10
    assert len(tight) <= 1.5 * len(loose)
