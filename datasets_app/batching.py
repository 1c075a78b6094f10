"""Batching writes rows into the table of examples by COPY in PostgreSQL's binary format.

Binary because psycopg builds arrays in Python and the server would parse and unescape every text: a million rows of
1 KB cost 2 s of Python here, against 14 s through `write_row`. The format is that of the manual's page on COPY.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from struct import Struct

from django.db import connection

from datasets_app.models import Example
from datasets_app.reading import Row

COPY = (
    f'COPY "{Example._meta.db_table}" (dataset_id, index, key, source, "references", "group", tags)'
    " FROM STDIN WITH (FORMAT BINARY)"
)
HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # signature, no flags, no extension
TAIL = b"\xff\xff"
FLUSH = 128 << 10  # bytes: the server works on them while the next rows are made
TEXT = 25  # the object id of the type text
FIRST = Struct(">hiqii")  # seven fields: the dataset (8 bytes), the index (4 bytes)
SIZE = Struct(">i")
ARRAY = Struct(">iiiiii")  # its size, one dimension, no nulls, of texts, so many, the first is number 1
NO_ARRAY = Struct(">iiii").pack(12, 0, 0, TEXT)
NO_TAGS = SIZE.pack(3) + b"\x01{}"  # jsonb: its version, then text
EMPTY = SIZE.pack(0)


def copy_rows(dataset: int, first: int, rows: Iterable[Row]) -> int:
    """Add `rows` to the dataset with this id, under the indexes from `first` on; how many they were.

    One statement, so all of them or none.
    """
    index = first
    with connection.cursor() as cursor:
        # The web's limit on a statement is for pages; a COPY is one statement however many rows it has.
        cursor.execute("SET LOCAL statement_timeout = 0")
        with cursor.copy(COPY) as copy:
            packed = bytearray(HEAD)
            for row in rows:
                _pack(packed, dataset, index, row)
                index += 1
                if len(packed) > FLUSH:
                    copy.write(packed)
                    packed = bytearray()
            copy.write(packed + TAIL)
    return index - first


def _pack(packed: bytearray, dataset: int, index: int, row: Row) -> None:
    packed += FIRST.pack(7, 8, dataset, 4, index)
    packed += _text(row.key) if row.key else EMPTY
    packed += _text(row.source)
    if row.references:
        texts = b"".join(map(_text, row.references))
        packed += ARRAY.pack(len(texts) + 20, 1, 0, TEXT, len(row.references), 1)
        packed += texts
    else:
        packed += NO_ARRAY
    packed += _text(row.group) if row.group else EMPTY
    if row.tags:
        tags = json.dumps(row.tags, ensure_ascii=False).encode()
        packed += SIZE.pack(len(tags) + 1) + b"\x01" + tags
    else:
        packed += NO_TAGS


def _text(text: str) -> bytes:
    data = text.encode()
    return SIZE.pack(len(data)) + data
