"""Arrow IPC, https://arrow.apache.org/docs/format/Columnar.html: one file, or the folder that `save_to_disk` of the
library `datasets` writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from datasets_app.formats import Format, Header, Problem, Record, Source, Unreadable, whole
from datasets_app.formats._batches import Cells, damaged, header_of, header_problems

FILE, STREAM = b"ARROW1", b"\xff\xff\xff\xff"
SLICE = 1000


def records(source: Source) -> Iterator[Header | Record | Problem]:
    """Its rows are counted from 1."""
    yield from _records([whole(source)])


def records_of_folder(path: Path, split: str = "") -> Iterator[Header | Record | Problem]:
    """The same from a folder of `Dataset.save_to_disk`, or from one `split` of a `DatasetDict.save_to_disk`.

    Without a `split` there may be only one. Raises Unreadable, as a format does.
    """
    if (path / "dataset_dict.json").is_file():
        splits = _listed(path / "dataset_dict.json", "splits")
        if not split and len(splits) == 1:
            split = splits[0]
        if split not in splits:
            message = f"The folder holds the splits {', '.join(splits) or 'none'}."
            raise Unreadable(Problem(None, "", message, "Say which one is meant: give its folder."))
        path = path / split
    state = path / "state.json"
    if not state.is_file():
        message = "The folder holds no state.json, so no dataset was saved to it."
        raise Unreadable(Problem(None, "", message, "Give the folder that save_to_disk wrote, or a file."))
    names = _listed(state, "_data_files")
    missing = [name for name in names if not (path / name).is_file()]
    if missing or not names:
        message = f"The folder lacks its data: {', '.join(missing[:5]) or 'no file is named'}."
        raise Unreadable(Problem(None, "", message, "Copy the whole folder."))
    opened = [(path / name).open("rb") for name in names]
    try:
        yield from _records(opened)
    finally:
        for file in opened:
            file.close()


def _listed(path: Path, key: str) -> list[str]:
    """The plain names of files or folders in a JSON of `datasets`; one with a way to elsewhere counts for nothing."""
    try:
        found: Any = json.loads(path.read_bytes()[: 1 << 20])[key]
        names = [one["filename"] if isinstance(one, dict) else one for one in found]
        return [name for name in names if isinstance(name, str) and Path(name).name == name]
    except (ValueError, TypeError, KeyError, RecursionError):
        message = f"{path.name} in the folder is no record of saved data."
        raise Unreadable(Problem(None, "", message, "Save the dataset again with save_to_disk.")) from None


def _records(files: Sequence[IO[bytes]]) -> Iterator[Header | Record | Problem]:
    n_bytes = sum(file.seek(0, 2) for file in files)
    cells: Cells | None = None
    for file in files:
        file.seek(0)
        for item in _batches(file):
            if cells is None:
                header = header_of(item)
                if problems := header_problems(header):
                    yield from problems
                    return
                yield header
                cells = Cells(header.names, n_bytes)
                schema = item
            elif hasattr(item, "num_rows"):
                yield from cells.records(item)
            elif item != schema:
                message = "The files of the folder do not have the same columns."
                raise Unreadable(Problem(None, "", message, "Save the dataset again with save_to_disk."))


def _batches(file: IO[bytes]) -> Iterator[Any]:
    """The schema, then its batches, checked to the last offset: an Arrow file is read as it lies."""
    import pyarrow as pa

    try:
        is_file = file.read(len(FILE)) == FILE
        file.seek(0)
        # Batches are taken without their dictionaries' deltas and compressed ones are unpacked by pyarrow, one a time.
        reader: Any = pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)
        yield reader.schema
        numbered = range(reader.num_record_batches) if is_file else iter(int, 1)
        for number in numbered:
            batch = reader.get_batch(number) if is_file else reader.read_next_batch()
            batch.validate(full=True)
            for start in range(0, batch.num_rows, SLICE):
                yield batch.slice(start, SLICE)
    except StopIteration:
        return
    except (MemoryError, Unreadable):
        raise
    except Exception as error:
        raise damaged("Arrow", error) from None


format = Format(
    name="arrow",
    label="Arrow",
    extensions=(".arrow", ".feather"),
    about=(
        "An Arrow file as the library datasets keeps it: columns of text, numbers, true or false, and lists of texts. "
        "Columns of other types are left out. Its rows are counted from 1."
    ),
    likeness=lambda head: 2 if head.startswith((FILE, STREAM)) else 0,
    records=records,
)
