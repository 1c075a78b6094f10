"""Pricing: exact, rounded up, and silent where something is not known."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models_registry.pricing import cost_micro


@pytest.mark.parametrize(
    ("tokens", "prices", "cost"),
    [
        ((1_000_000, None, 0), (0.15, 0.60), 150_000),  # 0.15 US dollars
        ((1000, 0, 500), (2.5, 10.0), 7500),
        ((1000, 400, 500), (2.5, 10.0, 1.25), 7000),
        ((1000, 400, 500), (2.5, 10.0), 7500),  # no price for cached tokens: charged in full
        ((1, None, 0), (0.15, 0.60), 1),  # rounded up, never down to nothing
        ((30, None, 0), (0.1, 0.1), 3),  # binary fractions would say 3.0000000000000004 and ceil to 4
        ((0, 0, 0), (2.5, 10.0), 0),
        ((10, 25, 0), (1, 1, 0.5), 13),  # more cached than read, as some gateways report
        ((None, None, None), (0, 0), 0),  # free, however many
        ((5, None, None), (1, 0), 5),
        ((1000, None, 10), ("2.5", Decimal("10")), 2600),
    ],
)
def test_cost(tokens: tuple[int | None, ...], prices: tuple[float, ...], cost: int) -> None:
    assert cost_micro(*tokens, *prices) == cost


@pytest.mark.parametrize(
    ("tokens", "prices"),
    [
        ((10, 0, 10), (None, 1.0)),
        ((10, 0, 10), (1.0, None)),
        ((None, 0, 10), (1.0, 1.0)),
        ((10, 0, None), (1.0, 1.0)),
    ],
)
def test_what_cannot_be_known_is_none_and_not_zero(tokens: tuple[int | None, ...], prices: tuple[float, ...]) -> None:
    assert cost_micro(*tokens, *prices) is None


@pytest.mark.parametrize("bad", [(-1, 0, 0, 1, 1), (1, 0, 0, -1, 1), (1, 0, 0, float("nan"), 1), (1, 0, 0, "x", 1)])
def test_nonsense_is_refused(bad: tuple[int, int, int, float, float]) -> None:
    with pytest.raises(ValueError, match=r"negative|price"):
        cost_micro(*bad)


tokens = st.integers(0, 10**7)
prices = st.decimals(0, 1000, places=4)


@given(tokens, tokens, tokens, prices, prices, prices)
@settings(max_examples=100, deadline=None)
def test_cost_is_the_exact_sum_rounded_up(
    fresh: int, cached: int, made: int, price_in: Decimal, price_out: Decimal, price_cached: Decimal
) -> None:
    exact = fresh * price_in + cached * price_cached + made * price_out
    assert cost_micro(fresh + cached, cached, made, price_in, price_out, price_cached) == math.ceil(exact)
