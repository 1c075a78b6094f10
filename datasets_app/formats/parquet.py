"""Parquet, https://parquet.apache.org/docs/file-format/: read a small batch at a time (SECURITY S20)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from datasets_app.formats import Format, Header, Problem, Record, Source, bomb, decoded_limit, whole
from datasets_app.formats._batches import Cells, damaged, encrypted, header_of, header_problems

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH_ROWS = 1000
BATCH_BYTES = 4 << 20
BUFFER = 1 << 20  # a column is read in pieces of this size, not a row group at once


def records(source: Source) -> Iterator[Header | Record | Problem]:
    """Its rows are counted from 1."""
    file = whole(source)
    n_bytes = file.seek(0, 2)
    file.seek(0)
    parquet = _opened(file, n_bytes)
    _declared(parquet.metadata, n_bytes)
    header = header_of(parquet.schema_arrow)
    if problems := header_problems(header):
        yield from problems
        return
    yield header
    cells = Cells(header.names, n_bytes)
    for batch in _batches(parquet, header):
        yield from cells.records(batch)


def _opened(file: IO[bytes], n_bytes: int) -> pq.ParquetFile:
    import pyarrow.parquet as pq

    file.seek(max(n_bytes - 4, 0))
    if file.read(4) == b"PARE":
        raise encrypted("Parquet")
    file.seek(0)
    try:
        plain = pq.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER)
        names = _repeated(plain.metadata)
        return pq.ParquetFile(
            file, pre_buffer=False, buffer_size=BUFFER, read_dictionary=names, metadata=plain.metadata
        )
    except MemoryError:
        raise
    except Exception as error:  # pyarrow raises OSError, ArrowInvalid, UnicodeDecodeError, and others for broken files
        raise damaged("Parquet", error) from None


def _declared(metadata: pq.FileMetaData, n_bytes: int) -> None:
    """Refuse what the file itself says is too much, before a byte is unpacked."""
    try:
        sizes = [metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)]
    except Exception as error:
        raise damaged("Parquet", error) from None
    if sum(max(size, 0) for size in sizes) > decoded_limit(n_bytes):
        raise bomb(n_bytes)


def _repeated(metadata: pq.FileMetaData) -> list[str]:
    """Texts of fewer than four bytes each must refer to a dictionary, as the length alone takes four otherwise. They
    stay encoded, so that a batch is small whatever they refer to. Others would gather a dictionary of the whole file.
    """
    values: dict[str, list[int]] = {}
    for group in range(metadata.num_row_groups):
        for place in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(place)
            if chunk.physical_type == "BYTE_ARRAY" and "." not in chunk.path_in_schema:
                total = values.setdefault(chunk.path_in_schema, [0, 0])
                total[0] += chunk.total_uncompressed_size
                total[1] += chunk.num_values
    return [name for name, (size, n) in values.items() if size < 4 * n]


def _batches(parquet: pq.ParquetFile, header: Header) -> Iterator[pa.RecordBatch]:
    metadata = parquet.metadata
    n_bytes = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    rows = max(1, min(BATCH_ROWS, BATCH_BYTES * max(metadata.num_rows, 1) // max(n_bytes, 1)))
    batches = parquet.iter_batches(batch_size=rows, columns=list(header.names), use_threads=False)
    while True:
        try:
            batch = next(batches).select(list(header.names))
            batch.validate()
        except StopIteration:
            return
        except MemoryError:
            raise
        except Exception as error:
            raise damaged("Parquet", error) from None
        yield batch


format = Format(
    name="parquet",
    label="Parquet",
    extensions=(".parquet",),
    about=(
        "Columns of text, numbers, true or false, and lists of texts; a list of texts as ground_truth gives a document "
        "several references. Columns of other types are left out. Its rows are counted from 1."
    ),
    likeness=lambda head: 2 if head.startswith((b"PAR1", b"PARE")) else 0,
    records=records,
)
