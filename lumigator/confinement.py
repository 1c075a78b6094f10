"""Confinement is what a child process does to itself before it touches somebody else's file (SECURITY S20).

No network, no core dumps, an end of its own when its parent is gone; and the little of the parent's environment that
a child may see.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

ALLOWED = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")
SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)


def bare_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What a child may see: an allow-list without secrets, and the folder of our packages on its path."""
    kept = {name: value for name, value in environment.items() if name in ALLOWED and not SECRET_NAME.search(name)}
    here = str(Path(__file__).resolve().parents[1])
    paths = [here, *(path for path in kept.get("PYTHONPATH", "").split(os.pathsep) if path and path != here)]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths)}


def end_with_parent(lifeline: int) -> None:
    """Ask the kernel for SIGIO, whose default is to end the process, when the last writer of this pipe is gone.

    The kernel needs no help from the interpreter for that, so it works inside a C call that holds the interpreter's
    lock. PR_SET_PDEATHSIG would end the child as soon as the *thread* that started it ends.
    """
    try:
        import fcntl

        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
        if os.read(lifeline, 1) == b"":  # the parent may have gone before the line above
            os._exit(0)
    except BlockingIOError:
        pass
    except (ImportError, AttributeError, OSError) as error:
        print(f"no lifeline: {error}", file=sys.stderr)


def leave_the_network() -> bool:
    """Move into a network namespace of our own, which has no network; False where that is not allowed.

    Root may do so at once; others need a user namespace too, in which they keep their user id. unshare(2),
    user_namespaces(7); Python 3.11 has no os.unshare.
    """
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    new_user, new_network = 0x10000000, 0x40000000
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None)
    if libc.unshare(new_network) == 0:
        return True
    if libc.unshare(new_user | new_network) != 0:
        return False
    with contextlib.suppress(OSError):
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    return True


def limit(name: str, value: int, grace: int = 0) -> None:
    """Set the limit of a resource such as "AS" (setrlimit(2)), the hard one higher by `grace`; neither above what is
    allowed now, and nothing where the platform has no such."""
    with contextlib.suppress(ImportError, AttributeError, OSError, ValueError):
        import resource

        which = getattr(resource, f"RLIMIT_{name}")
        most = resource.getrlimit(which)[1]
        hard = value + grace if most == resource.RLIM_INFINITY else min(value + grace, most)
        resource.setrlimit(which, (min(value, hard), hard))
