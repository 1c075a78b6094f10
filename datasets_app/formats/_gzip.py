"""gzip, RFC 1952: one member, unpacked while it is read, and never more of it than `decoded_limit` allows."""

from __future__ import annotations

import zlib

from datasets_app.formats import Problem, Source, Unreadable, bomb, decoded_limit

MAGIC = b"\x1f\x8b"
CHUNK = 256 * 1024
AGAIN = "Pack it again, or upload it unpacked."


class Gunzipped:
    """What is in a gzip file, as a source. `read` raises Unreadable for a damaged file and for a bomb."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self.waiting = b""  # packed bytes that were read and not used
        self.n_packed = self.n_unpacked = 0

    def read(self, size: int, /) -> bytes:
        while True:
            if not self.waiting:
                self.waiting = self.source.read(CHUNK)
                self.n_packed += len(self.waiting)
            if self.inflate.eof:
                return self._end()
            if not self.waiting:
                raise Unreadable(Problem(None, "", "The gzip file ends too early: a part of it is missing.", AGAIN))
            try:
                out = self.inflate.decompress(self.waiting, size)
            except zlib.error:
                raise Unreadable(Problem(None, "", "The gzip file is damaged.", AGAIN)) from None
            self.waiting = self.inflate.unused_data if self.inflate.eof else self.inflate.unconsumed_tail
            self.n_unpacked += len(out)
            if self.n_unpacked > decoded_limit(self.n_packed):
                raise bomb(self.n_packed)
            if out:
                return out

    def _end(self) -> bytes:
        """Zeros may follow (tapes and some tools pad); another member, or anything else, may not."""
        while self.waiting:
            if self.waiting.strip(b"\0"):
                message = "Several files, or something else, are joined behind one another in the gzip file."
                raise Unreadable(Problem(None, "", message, "Pack one file as one, or upload it unpacked."))
            self.waiting = self.source.read(CHUNK)
        return b""
