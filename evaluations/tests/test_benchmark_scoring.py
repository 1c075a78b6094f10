"""The benchmark of scoring measures equal numbers: its pieces on a handful of texts, its speed on none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks import scoring
from evaluations.metrics import (
    Item,
    _chunks,
    _meteor_words,
    _rouge_counting,
    _rouge_words,
    _sentences,
    bertscore,
    meteor,
    rouge,
)

pytestmark = pytest.mark.skipif(bool(meteor.available({})), reason="the `worker` extra is not installed")


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The benchmark empties memories and switches the kernel: the next test finds everything as it was."""
    import nltk

    monkeypatch.setattr(nltk, "sent_tokenize", nltk.sent_tokenize)
    monkeypatch.setattr(_rouge_counting, "_done", _rouge_counting._done)
    monkeypatch.setattr(_chunks, "_kernel", _chunks._kernel)
    monkeypatch.setattr(_rouge_words, "_current", dict(_rouge_words._current))
    monkeypatch.setattr(_meteor_words, "_current", list(_meteor_words._current))
    monkeypatch.setattr(bertscore, "_embedded", bertscore._embedded)
    yield
    scoring.published_rouge.cache_clear()


@pytest.fixture(scope="module")
def candidates() -> list[list[Item]]:
    return scoring.documents(3, candidates=2)


def test_texts_are_the_same_every_time_and_share_their_references(candidates: list[list[Item]]) -> None:
    again = scoring.documents(2, first=1, candidates=2)
    assert [rows[1:] for rows in candidates] == again
    first, second = (rows[0] for rows in candidates)
    assert first.references == second.references and first.text != second.text
    assert len(_sentences.sentences(first.text)) == 4
    assert 0.4 < rouge.score([first], {})[0]["rouge1"] < 0.9  # type: ignore[operator]


def test_rouge_and_meteor_equal_their_peers(candidates: list[list[Item]]) -> None:
    rows = [*scoring.measure_rouge(candidates, 1), *scoring.measure_meteor(candidates, 1)]
    assert len(rows) >= 3
    assert all(row.equal is True and row.target for row in rows)


def test_the_ninth_candidate_equals_its_peers(candidates: list[list[Item]]) -> None:
    assert scoring.measure_ninth(candidates[:1], candidates[1], 1).equal is True


def test_long_texts_equal_their_peer() -> None:
    assert all(row.equal is True for row in scoring.measure_long(300, 1))


def test_a_difference_is_seen(candidates: list[list[Item]]) -> None:
    items = candidates[0]

    def wrong() -> list[dict[str, float]]:
        rows = scoring.their_rouge(items)
        return [*rows[:-1], {**rows[-1], "rouge2": rows[-1]["rouge2"] + 1e-12}]

    assert scoring.compared("", "", lambda: rouge.score(items, {}), wrong, 1, 0).equal is False
    assert scoring.compared("", "", lambda: [[1.0]], lambda: [[1.1]], 1, 0, near=1e-6).equal is False


def test_forgetting_empties_every_memory(candidates: list[list[Item]]) -> None:
    meteor.score(candidates[0], {})
    scoring.forget()
    assert not _meteor_words._current and not _rouge_words._current
    assert _sentences._inner_word.cache_info().currsize == _sentences._remembered_look.cache_info().currsize == 0
