"""Profiling describes a dataset in numbers while its rows stream by: an honest picture of what was uploaded.

Pure. What is cheap is computed of all rows; languages, extractiveness and names of a sample of 2,000, drawn with a
fixed seed, and every such figure says of how many. Time: some 90 µs for a row of 200 words, six times that of cutting
it into words (measured on two busy cores), and 1 ms for a sampled one. Memory: some 50 bytes a row, 32 MiB for near
duplicates, 32 MiB at most for the sample, 100 MB while the languages are loaded: 220 MB at most for 1,000,000 rows,
whatever their length. No text of a row gets into a profile: only counts, places, and personal data in masked form.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable
from sys import getsizeof
from typing import Any, NamedTuple

import numpy as np

from datasets_app import personal_data, supporting
from datasets_app.copying import Extract, extract, how_copied, words
from datasets_app.duplicates import NearDuplicates, repeated, text_hash
from datasets_app.languages import NAMES, UNDETERMINED, language_of, let_go
from datasets_app.lengths import beyond_windows, estimated_tokens, far_out, figures, histogram
from datasets_app.reading import Row
from datasets_app.sampling import Reservoir

VERSION = 2  # of what `as_dict` gives; 1 had only counts, lengths in words, groups and tags
MAX_VALUES = 1_000  # distinct groups, or values of one tag, beyond which they are not counted any further
SHOWN_VALUES = 20
FIRST = 5  # places that are named of each finding
SAMPLE = 2_000
MANY = 200_000  # rows
SEED = 20_260_101
HELD_BYTES = 16 * 1024  # a sampled row above this is looked at when it comes, not at the end: its text is not held

TYPICAL_SD = 0.10  # of the difference of two models' ROUGE on one document; STATISTICS §2 measured it on news
DETECTED = 2.80  # standard errors that a difference needs: 80 % power at a two-sided 5 %
COPIED = ("whole", "beginning", "inside")  # what `how_copied` answers
SOMETHING = re.compile(r"[^\W_]")  # a letter or a digit


class Looked(NamedTuple):
    """What the slow looking at one sampled row found: its language, whether a name is missing (None: not checked)."""

    row: int
    language: str
    lacks_name: bool | None
    extracts: list[Extract]


class Tally:
    """How many rows something was found in, and the first few of them."""

    def __init__(self, rows: Iterable[int] = ()) -> None:
        self.n = 0
        self.first: list[int] = []
        for row in rows:
            self.add(row)

    def add(self, index: int) -> None:
        self.n += 1
        if len(self.first) < FIRST:
            self.first.append(index)

    def as_dict(self, **more: Any) -> dict[str, Any]:
        return {"n": self.n, "first": self.first, **more}


class Profile:
    """Add every row, then ask for `as_dict()`. The same rows give the same profile."""

    def __init__(self) -> None:
        self.n = self.n_with_reference = self.n_with_several_references = self.max_references = 0
        self.source_words, self.source_tokens = array("I"), array("I")
        self.reference_words, self.reference_tokens, self.reference_rows = array("I"), array("I"), array("I")
        self.source_hashes, self.group_hashes, self.reference_hashes = array("Q"), array("Q"), array("Q")
        self.groups: Counter[str] = Counter()
        self.tags: dict[str, Counter[str]] = {}
        self.near = NearDuplicates()
        self.sample: Reservoir[Looked | tuple[int, Row]] = Reservoir(SAMPLE, SEED)
        self.found = {name: Tally() for name in (*COPIED, "blank", "longer", "numbers")}
        self.personal = {kind: Tally() for kind in personal_data.KINDS}
        self.masked: dict[str, list[str]] = {kind: [] for kind in personal_data.KINDS}
        self.n_personal = 0

    def add(self, row: Row) -> None:
        index, self.n = self.n, self.n + 1
        source_words = row.source.split()
        source = " ".join(source_words)
        self.source_words.append(len(source_words))
        self.source_tokens.append(estimated_tokens(source))
        self.source_hashes.append(text_hash(source))
        self.near.add(index, source, len(source_words))
        self._add_references(index, row.references, source)
        self._add_personal(index, row.source)
        self.group_hashes.append(text_hash(row.group) if row.group else 0)
        if row.group:
            _count(self.groups, row.group)
        for name, value in row.tags.items():
            _count(self.tags.setdefault(name, Counter()), str(value))
        if (place := self.sample.place()) is not None:
            size = getsizeof(row.source) + sum(map(getsizeof, row.references))
            self.sample.keep(place, (index, row) if size <= HELD_BYTES else look(index, row))

    def _add_references(self, index: int, references: list[str], source: str) -> None:
        self.n_with_reference += bool(references)
        self.n_with_several_references += len(references) > 1
        self.max_references = max(self.max_references, len(references))
        found = set()
        for text in references:
            reference_words = text.split()
            reference = " ".join(reference_words)
            self.reference_words.append(len(reference_words))
            self.reference_tokens.append(estimated_tokens(reference))
            self.reference_rows.append(index)
            self.reference_hashes.append(text_hash(reference))
            if not SOMETHING.search(reference):
                found.add("blank")
            if len(reference) > len(source):
                found.add("longer")
            if how := how_copied(reference, source):
                found.add(how)
            elif supporting.has_unsupported_number(reference, source):
                found.add("numbers")
        for name in found:
            self.found[name].add(index)

    def _add_personal(self, index: int, text: str) -> None:
        found = personal_data.found_in(text)
        self.n_personal += bool(found)
        for kind, masked in found.items():
            self.personal[kind].add(index)
            if len(self.masked[kind]) < FIRST:
                self.masked[kind].append(masked)

    def as_dict(self) -> dict[str, Any]:
        """What `ProfileSerializer` describes. A figure is None where there is nothing to compute it of; `n_examined`
        is below `n_examples` where a sample was looked at; `first` are the lowest indexes it is true of."""
        looked = sorted(one if isinstance(one, Looked) else look(*one) for one in self.sample.kept)
        if self.n > MANY:
            let_go()  # what follows sorts arrays as long as the dataset, and takes as much memory
        return {
            "version": VERSION,
            "n_examples": self.n,
            "n_with_reference": self.n_with_reference,
            "n_with_several_references": self.n_with_several_references,
            "max_references": self.max_references,
            "source_words": figures(self.source_words),
            "reference_words": figures(self.reference_words),
            "source_tokens": figures(self.source_tokens),
            "reference_tokens": figures(self.reference_tokens),
            "source_histogram": histogram(self.source_words),
            "reference_histogram": histogram(self.reference_words),
            "windows": beyond_windows(self.source_tokens),
            "languages": _languages(looked),
            "duplicates": self._duplicates(),
            "copied": self._copied(),
            "references": self._references(looked),
            "extractiveness": _extractiveness(looked),
            "personal_data": self._personal(),
            "detectable": self._detectable(),
            "groups": _values(self.groups),
            "tags": {name: _values(counts) for name, counts in sorted(self.tags.items())},
        }

    def _duplicates(self) -> dict[str, Any]:
        later, of = repeated(self.source_hashes)
        groups = np.frombuffer(self.group_hashes, dtype=np.uint64) if self.n else np.empty(0, np.uint64)
        across = of[(groups[later] != groups[of]) & (groups[later] != 0) & (groups[of] != 0)]
        n_examined, near = self.near.found()
        same = set(later.tolist())
        near = [one for one in near if one.row not in same]
        return {
            "exact": {
                "n": len(later),
                "n_texts": len(np.unique(of)),
                "n_across_groups": len(np.unique(across)),
                "first": [{"index": a, "of": b} for a, b in zip(later[:FIRST].tolist(), of.tolist(), strict=False)],
            },
            "near": {
                "n": len(near),
                "n_examined": n_examined,
                "is_sample": self.near.is_sample,
                "first": [{"index": one.row, "of": one.of, "similarity": one.similarity} for one in near[:FIRST]],
            },
        }

    def _copied(self) -> dict[str, Any]:
        rows = np.frombuffer(self.reference_rows, dtype=np.uint32) if self.reference_rows else np.empty(0, np.uint32)
        texts = np.frombuffer(self.source_hashes, dtype=np.uint64)[rows] if self.n else np.empty(0, np.uint64)
        shared = _shared(np.array(self.reference_hashes, dtype=np.uint64), texts, rows)
        return {how: self.found[how].as_dict() for how in COPIED} | {"shared": Tally(shared).as_dict()}

    def _references(self, looked: list[Looked]) -> dict[str, Any]:
        rows = np.frombuffer(self.reference_rows, dtype=np.uint32) if self.reference_rows else np.empty(0, np.uint32)
        much_longer = np.unique(rows[far_out(self.reference_tokens)]).tolist()
        checked = [one for one in looked if one.lacks_name is not None]
        names = Tally(one.row for one in checked if one.lacks_name)
        return {
            "missing": self.n - self.n_with_reference,
            "blank": self.found["blank"].as_dict(),
            "longer_than_document": self.found["longer"].as_dict(),
            "much_longer_than_others": Tally(much_longer).as_dict(),
            "numbers_not_in_document": self.found["numbers"].as_dict(),
            "names_not_in_document": names.as_dict(n_examined=len(checked), is_sample=self.sample.is_sample),
        }

    def _personal(self) -> dict[str, Any]:
        kinds = {
            kind: {
                "n": tally.n,
                "examples": [
                    {"index": index, "masked": masked}
                    for index, masked in zip(tally.first, self.masked[kind], strict=True)
                ],
            }
            for kind, tally in self.personal.items()
        }
        return {"n": self.n_personal, "kinds": kinds}

    def _detectable(self) -> dict[str, Any] | None:
        """What a comparison on the documents with references can show; on all, where none has one."""
        groups = np.frombuffer(self.group_hashes, dtype=np.uint64) if self.n else np.empty(0, np.uint64)
        if self.reference_rows:
            groups = groups[np.unique(np.frombuffer(self.reference_rows, dtype=np.uint32))]
        n = int((groups == 0).sum()) + len(np.unique(groups[groups != 0]))
        return detectable(n, unit="groups" if (groups != 0).any() else "documents") if n else None


def look(index: int, row: Row) -> Looked:
    """The slow part, for a sampled row: about 1 ms for 200 words."""
    language = language_of(row.source)
    source = words(row.source)
    known = frozenset(source)
    lacks = [supporting.has_unsupported_name(reference, known, language) for reference in row.references]
    checked = [one for one in lacks if one is not None]
    extracts = [found for reference in row.references if (found := extract(words(reference), source))]
    return Looked(index, language, any(checked) if checked else None, extracts)


def detectable(n: int, unit: str = "documents") -> dict[str, Any]:
    """{n, unit, assumed_sd, points, n_for_one_point, n_for_two_points}: the least difference of two models' mean ROUGE
    (in points: hundredths) that `n` paired documents show four times out of five, 2.80 · SD / √n."""
    needed = {points: math.ceil((100 * DETECTED * TYPICAL_SD / points) ** 2 - 1e-9) for points in (1, 2)}
    return {
        "n": n,
        "unit": unit,
        "assumed_sd": TYPICAL_SD,
        "points": round(100 * DETECTED * TYPICAL_SD / math.sqrt(n), 2),
        "n_for_one_point": needed[1],
        "n_for_two_points": needed[2],
    }


def _shared(references: Any, texts: Any, rows: Any) -> list[int]:
    """The rows whose reference stands on another document too, one with another text; ascending."""
    if not len(rows):
        return []
    order = np.lexsort((texts, references))
    reference, text = references[order], texts[order]
    begins = np.concatenate([[True], reference[1:] != reference[:-1]])
    other_text = ~begins & np.concatenate([[False], text[1:] != text[:-1]])
    run = np.cumsum(begins) - 1
    several = np.bincount(run, weights=other_text) > 0
    return np.unique(rows[order[several[run]]]).tolist()


def _languages(looked: list[Looked]) -> dict[str, Any]:
    counts = Counter(one.language for one in looked)
    known = sorted(((code, n) for code, n in counts.items() if code in NAMES), key=lambda pair: (-pair[1], pair[0]))
    firsts = {code: Tally(one.row for one in looked if one.language == code).first for code, _ in known}
    return {
        "n_examined": len(looked),
        "found": [{"code": code, "name": NAMES[code], "n": n, "first": firsts[code]} for code, n in known],
        "undetermined": {why: counts[why] for why in UNDETERMINED},
    }


def _extractiveness(looked: list[Looked]) -> dict[str, Any] | None:
    """Medians over the references of the sampled rows, and of how many; None where there is no reference."""
    extracts = [one for row in looked for one in row.extracts]
    if not extracts:
        return None
    medians = np.median(np.array(extracts), axis=0).tolist()
    return {"n_references": len(extracts)} | {
        name: round(value, 3) for name, value in zip(Extract._fields, medians, strict=True)
    }


def _count(counts: Counter[str], value: str) -> None:
    if value in counts or len(counts) < MAX_VALUES:
        counts[value] += 1


def _values(counts: Counter[str]) -> dict[str, Any]:
    """{n, is_capped, largest[{value, n}]}: how many distinct values there are (at least, when capped)."""
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:SHOWN_VALUES]
    return {
        "n": len(counts),
        "is_capped": len(counts) >= MAX_VALUES,
        "largest": [{"value": value, "n": n} for value, n in ranked],
    }
