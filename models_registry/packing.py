"""Pack rows of a model's input into batches, and run them so that no row is lost.

Rows are sorted by length and filled by rows × longest ≤ budget, longest batch first: an out-of-memory shows at
once, and padding stays small. A batch that does not fit in memory is halved, and the size it taught is kept; a batch
that fails with any other exception is bisected down to the row that causes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from models_registry.providers import Output, ProviderError

LONGEST_MESSAGE = 300


class Row(Protocol):
    """One example, ready to be run."""

    @property
    def key(self) -> int: ...
    @property
    def length(self) -> int: ...


R = TypeVar("R", bound=Row)


@dataclass
class Budget:
    """How large a batch may be: padded input tokens, and rows. Shrinks when memory runs out, and stays so.

    `padding` is the largest share of a batch, 0 to 1, that may be padding: where a padded position costs as much as
    any other, rows of unlike lengths are better run apart.
    """

    tokens: int
    rows: int | None = None
    padding: float = 1.0

    def holds(self, rows: int, longest: int) -> bool:
        """One row is always tried: whether it fits is for the device to say."""
        return rows == 1 or (rows * longest <= self.tokens and (self.rows is None or rows <= self.rows))

    def pads_little(self, filled: int, padded: int) -> bool:
        """Whether `filled` tokens in a batch of `padded` positions leave no more empty than is allowed."""
        return padded - filled <= self.padding * padded

    def shrink(self, rows: int, longest: int) -> None:
        """Remember that a batch of this shape ran out of memory."""
        self.tokens = max(1, min(self.tokens, rows // 2 * longest))


def pack(rows: Sequence[R], budget: Budget) -> list[list[R]]:
    """Batches, longest rows first; every row is in exactly one. Rows of one length keep their order."""
    batches: list[list[R]] = []
    filled = 0
    for row in sorted(rows, key=lambda row: -row.length):
        if batches and _has_room(batches[-1], filled + row.length, budget):
            batches[-1].append(row)
            filled += row.length
        else:
            batches.append([row])
            filled = row.length
    return batches


def _has_room(batch: Sequence[Row], filled: int, budget: Budget) -> bool:
    """Whether one more row fits, so that `filled` tokens of the batch are no padding."""
    rows, longest = len(batch) + 1, batch[0].length
    return budget.holds(rows, longest) and budget.pads_little(filled, rows * longest)


def padding_of(batches: Sequence[Sequence[Row]]) -> float:
    """The share of the batches' positions that is padding, 0 to 1; 0 without batches."""
    padded = sum(len(batch) * max(row.length for row in batch) for batch in batches)
    return 1 - sum(row.length for batch in batches for row in batch) / padded if padded else 0.0


def run_packed(
    rows: Sequence[R],
    budget: Budget,
    forward: Callable[[Sequence[R]], list[Output]],
    *,
    starting: Callable[[list[int]], None] = lambda keys: None,
    is_memory: Callable[[Exception], bool] = lambda error: isinstance(error, MemoryError),
    free: Callable[[], None] = lambda: None,
) -> Iterator[list[Output]]:
    """Yield the outputs of each batch; every row is answered exactly once.

    `starting` is called with a batch's keys before it is run, `free` after memory ran out. A row that alone runs
    out of memory gets the error `oom`; one that alone raises gets `model_error`. ProviderError passes through.
    """
    waiting = deque(pack(rows, budget))
    while waiting:
        batch = waiting.popleft()
        if not budget.holds(len(batch), batch[0].length):
            waiting.extendleft(reversed(pack(batch, budget)))
            continue
        starting([row.key for row in batch])
        outcome = _attempt(batch, forward, is_memory)
        if isinstance(outcome, list):
            yield outcome
            continue
        if outcome.code == "oom":
            free()
            budget.shrink(len(batch), batch[0].length)
        if len(batch) == 1:
            yield [Output(batch[0].key, "error", error_code=outcome.code, error=outcome.message)]
        else:
            middle = len(batch) // 2
            waiting.extendleft([batch[middle:], batch[:middle]])


@dataclass(frozen=True)
class _Failed:
    code: str
    message: str


def _attempt(
    batch: Sequence[R], forward: Callable[[Sequence[R]], list[Output]], is_memory: Callable[[Exception], bool]
) -> list[Output] | _Failed:
    """The outputs, or what went wrong. The exception ends here: its traceback would keep the tensors alive."""
    try:
        return forward(batch)
    except ProviderError:
        raise
    except Exception as error:
        if is_memory(error):
            return _Failed("oom", "this document alone needs more memory than the device has; use a smaller window")
        return _Failed("model_error", f"{type(error).__name__}: {error}"[:LONGEST_MESSAGE])
