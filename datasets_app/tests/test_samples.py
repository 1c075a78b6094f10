"""The sample dataset that ships with Lumigator keeps the promises of its own README."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
KINDS = {"report": "news", "dialogue": "chat", "notes": "notes"}
LENGTHS = {"short": range(60, 150), "medium": range(150, 300), "long": range(300, 601)}
FIELDS = {"id", "examples", "ground_truth", "ground_truth_2", "kind", "length"}
LONGEST_COPY = 6  # words in a row: a name with its date is allowed, a clause is not


def read_rows() -> list[dict[str, Any]]:
    # Split on \n alone: str.splitlines would also cut at characters that are legal inside a JSON string.
    lines = (SAMPLES / "workplace.jsonl").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return [json.loads(line) for line in lines]


def references(row: dict[str, Any]) -> list[str]:
    return [row[field] for field in ("ground_truth", "ground_truth_2") if field in row]


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def sentences(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.!?])[\"”]?\s+|\n+", text) if part.strip()]


def figures(text: str) -> set[str]:
    """Numbers as written, so 2,190 and 07:30 are one figure each; a full stop that ends the sentence is not theirs."""
    return set(re.findall(r"\d+(?:[.,:]\d+)*", text))


def shared_run(summary: str, document: str) -> list[str]:
    """The longest run of words that the summary has in common with the document, punctuation and case aside."""
    said, haystack = words(summary), f" {' '.join(words(document))} "
    best: list[str] = []
    for start in range(len(said)):
        for end in range(start + len(best) + 1, len(said) + 1):
            if f" {' '.join(said[start:end])} " not in haystack:
                break
            best = said[start:end]
    return best


ROWS = read_rows()
every_row = pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])


def test_there_are_enough_documents_of_each_kind_and_length() -> None:
    counts = Counter((row["kind"], row["length"]) for row in ROWS)
    assert len(ROWS) >= 60
    assert set(counts) == {(kind, length) for kind in KINDS for length in LENGTHS}
    assert min(counts.values()) >= 6, counts


def test_at_least_twenty_documents_have_a_second_reference_and_some_have_none() -> None:
    with_second = sum("ground_truth_2" in row for row in ROWS)
    assert 20 <= with_second < len(ROWS)


def test_ids_are_unique() -> None:
    assert [ident for ident, n in Counter(row["id"] for row in ROWS).items() if n > 1] == []


def test_no_document_repeats_another() -> None:
    """Neither whole nor in part: even one five-word run in twenty in common would betray a template."""
    runs = {row["id"]: five_word_runs(row["examples"]) for row in ROWS}
    idents = sorted(runs)
    alike = [
        (a, b)
        for i, a in enumerate(idents)
        for b in idents[i + 1 :]
        if len(runs[a] & runs[b]) > 0.05 * min(len(runs[a]), len(runs[b]))
    ]
    assert alike == []


def five_word_runs(text: str) -> set[tuple[str, ...]]:
    said = words(text)
    return {tuple(said[i : i + 5]) for i in range(len(said) - 4)}


def test_no_reference_is_used_twice() -> None:
    all_references = [" ".join(words(reference)) for row in ROWS for reference in references(row)]
    assert len(set(all_references)) == len(all_references)


@every_row
def test_a_row_has_the_declared_fields_all_filled_with_text(row: dict[str, Any]) -> None:
    assert set(row) in (FIELDS, FIELDS - {"ground_truth_2"})
    assert all(isinstance(value, str) and value == value.strip() != "" for value in row.values())
    assert re.fullmatch(rf"{KINDS[row['kind']]}-\d\d", row["id"])


@every_row
def test_the_length_label_is_true(row: dict[str, Any]) -> None:
    assert len(row["examples"].split()) in LENGTHS[row["length"]]


@every_row
def test_a_reference_is_one_to_three_sentences_and_at_most_a_third_of_its_document(row: dict[str, Any]) -> None:
    for reference in references(row):
        n_words = len(reference.split())
        assert 15 <= n_words <= 60
        assert 3 * n_words <= len(row["examples"].split())
        assert 1 <= len(sentences(reference)) <= 3
        assert reference.endswith(".") and "\n" not in reference


@every_row
def test_a_reference_is_not_copied_from_its_document(row: dict[str, Any]) -> None:
    for reference in references(row):
        run = shared_run(reference, row["examples"])
        assert len(run) <= LONGEST_COPY, " ".join(run)


@every_row
def test_every_figure_in_a_reference_stands_in_the_document(row: dict[str, Any]) -> None:
    for reference in references(row):
        assert figures(reference) - figures(row["examples"]) == set()


@every_row
def test_the_second_reference_is_worded_independently(row: dict[str, Any]) -> None:
    if "ground_truth_2" in row:
        run = shared_run(row["ground_truth_2"], row["ground_truth"])
        assert len(run) <= LONGEST_COPY, " ".join(run)


@every_row
def test_texts_hold_no_stray_characters(row: dict[str, Any]) -> None:
    """No control characters but the line break, no lone surrogates, nothing invisible, and composed accents (NFC)."""
    for text in row.values():
        stray = [c for c in text if c != "\n" and unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}]
        assert stray == []
        assert text == unicodedata.normalize("NFC", text)


@every_row
def test_texts_hold_no_e_mail_web_address_or_phone_number(row: dict[str, Any]) -> None:
    assert not re.search(r"\S@\S|https?:|www\.|\+\d{2}[\d ]{6,}", " ".join(row.values()))


def test_a_dialogue_is_turns_between_at_least_two_speakers() -> None:
    for row in ROWS:
        if row["kind"] == "dialogue":
            turns = [re.fullmatch(r"([^:\n]{1,20}): \S.*", line) for line in row["examples"].split("\n")]
            assert all(turns), row["id"]
            assert len({turn[1] for turn in turns if turn}) >= 2, row["id"]


def test_reports_keep_news_for_later_than_their_third_sentence() -> None:
    """Lead-3 must be beatable: most references use several of the report's words that its opening does not hold."""
    reports = [row for row in ROWS if row["kind"] == "report"]
    assert sum(len(late_words(row)) >= 4 for row in reports) >= 0.9 * len(reports)


def late_words(row: dict[str, Any]) -> set[str]:
    lead = " ".join(sentences(row["examples"])[:3])
    telling = {word for word in words(row["ground_truth"]) if len(word) > 4 or word.isdigit()}
    return (telling & set(words(row["examples"]))) - set(words(lead))


def test_the_readme_counts_what_the_file_holds() -> None:
    readme = (SAMPLES / "README.md").read_text(encoding="utf-8")
    counts = Counter((row["kind"], row["length"]) for row in ROWS)
    for kind in KINDS:
        by_length = [counts[kind, length] for length in LENGTHS]
        ending = "".join(f" {n} |" for n in [*by_length, sum(by_length)])
        assert [line for line in readme.splitlines() if line.startswith(f"| {kind} |") and line.endswith(ending)], kind
    with_second = sum("ground_truth_2" in row for row in ROWS)
    assert f"{len(ROWS)} short English documents" in readme
    assert f"\n{with_second} documents have a second reference" in readme
    assert "CC0 1.0" in readme
