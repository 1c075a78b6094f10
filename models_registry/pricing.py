"""Pricing says what a call cost, in whole micro-US-dollars, rounded up so that a budget is never passed unseen.

A price of one US dollar per million tokens is one micro-dollar per token, so prices and tokens just multiply.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

Price = Decimal | float | int | str


def cost_micro(
    input_tokens: int | None,
    cached_tokens: int | None,
    output_tokens: int | None,
    price_in: Price | None,
    price_out: Price | None,
    price_cached: Price | None = None,
) -> int | None:
    """Cost in micro-US-dollars, ceiled; None where it cannot be known (no price, or unknown tokens at a price).

    Prices are US dollars per million tokens. `cached_tokens` are part of `input_tokens`, cost `price_cached`, and
    `price_in` where that is None; None means that none were reported, and all are charged in full.
    Raises ValueError for negative tokens or prices, or a price that is not a number.
    """
    if price_in is None or price_out is None:
        return None
    fresh_price, output_price = _exact(price_in), _exact(price_out)
    cached_price = fresh_price if price_cached is None else _exact(price_cached)
    if any(tokens is not None and tokens < 0 for tokens in (input_tokens, cached_tokens, output_tokens)):
        raise ValueError("token counts cannot be negative")
    cached = cached_tokens or 0
    fresh = None if input_tokens is None else max(0, input_tokens - cached)
    parts = [_part(fresh, fresh_price), _part(cached, cached_price), _part(output_tokens, output_price)]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return int(sum(known, Decimal(0)).to_integral_value(rounding=ROUND_CEILING))


def _part(tokens: int | None, price: Decimal) -> Decimal | None:
    if price == 0:
        return Decimal(0)  # what is free is free, however many tokens it was
    return None if tokens is None else tokens * price


def _exact(price: Price) -> Decimal:
    """The price as it was written: 0.1 is a tenth, not the nearest binary fraction, which may ceil to 1 more."""
    try:
        exact = Decimal(str(price))
    except ArithmeticError:
        raise ValueError(f"{price!r} is not a price in US dollars per million tokens") from None
    if not exact.is_finite() or exact < 0:
        raise ValueError(f"{price!r} is not a price in US dollars per million tokens")
    return exact
