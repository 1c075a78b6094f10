"""What every part of the laptop mode raises."""

from __future__ import annotations


class EmbeddedError(RuntimeError):
    """The embedded servers cannot be had. The message says what, where, the log's last lines, and the cure."""
