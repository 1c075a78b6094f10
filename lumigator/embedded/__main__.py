"""`python -m lumigator.embedded keep HOME`: detach, then be the keeper of HOME."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from pathlib import Path

from lumigator.embedded.keeper import keep


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] != "keep":
        print("usage: python -m lumigator.embedded keep HOME", file=sys.stderr)
        return 2
    if os.fork():  # the keeper is nobody's child: no client has to reap it
        os._exit(0)
    os.umask(0o077)
    pipe = os.dup(1)
    os.dup2(2, 1)

    def report(message: str) -> None:
        nonlocal pipe
        if pipe >= 0:
            with contextlib.suppress(BrokenPipeError):  # the client that waited was killed; others may come
                os.write(pipe, message.encode())
            os.close(pipe)
            pipe = -1

    try:
        keep(Path(arguments[1]), report)
    except Exception as error:
        traceback.print_exc()
        report(f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
