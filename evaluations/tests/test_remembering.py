"""What is remembered stays within its limit in bytes, and what was used last stays longest."""

from __future__ import annotations

from evaluations.metrics._remembering import Memory


def test_what_was_used_longest_ago_goes_first() -> None:
    memory: Memory[str] = Memory(30)
    for key in "abc":
        memory.keep(key, key.upper(), 10)
    assert memory.get("a") == "A"
    memory.keep("d", "D", 10)
    assert [memory.get(key) for key in "abcd"] == ["A", None, "C", "D"]
    assert memory.size == 30


def test_keeping_again_replaces_value_and_size() -> None:
    memory: Memory[str] = Memory(30)
    memory.keep("a", "old", 10)
    memory.keep("a", "new", 20)
    assert (memory.get("a"), memory.size, len(memory)) == ("new", 20, 1)


def test_what_is_larger_than_the_limit_is_not_kept_and_pushes_nothing_out() -> None:
    memory: Memory[str] = Memory(30)
    memory.keep("a", "small", 10)
    memory.keep("b", "huge", 31)
    assert (memory.get("a"), memory.get("b")) == ("small", None)
