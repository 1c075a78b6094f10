"""The child process that runs a registered `evaluate` module, so that its code sees no secret and no network.

Frames are those of `models_registry.hosting`. The parent describes the module, then sends one item at a time:

    parent  {"folder", "keys", "compute", "needs_reference", "needs_source"}    child  {"many": bool} or {"failed": …}
    parent  {"text", "references", "source"}                child  {"values": {key: number or reason}} or {"failed": …}

evaluate and the hub's library read their switches when they are imported: only a process of its own can be sure that
they are off. The child ends when its input ends.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from numbers import Real
from typing import Any

from models_registry import hosting

HANG_SECONDS = 600.0
OFFLINE = {"HF_EVALUATE_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
SEED = 0
"""What numpy draws during `compute`: evaluate takes it from the process's own state otherwise."""
OURS = ("predictions", "references", "sources")


class ModuleHost:
    """One module in a child process. Not shared between threads: hold `lock`."""

    def __init__(self, opening: Mapping[str, Any]) -> None:
        """`opening` is the first frame. Raises RuntimeError when the module cannot be loaded, and says why."""
        self.lock = threading.Lock()
        self._seconds = float(os.environ.get("LUMIGATOR_HANG_SECONDS") or HANG_SECONDS)
        self._place = tempfile.mkdtemp(prefix="lumigator-evaluate-")
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "evaluations.metrics._evaluate_host", self._place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it may quote documents, which a log must not
            env=environment(os.environ, self._place),
        )
        atexit.register(self.close)
        answer = self.ask(opening)
        if "failed" in answer:
            self.close()
            raise RuntimeError(answer["failed"])
        self.many: bool = answer["many"]

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The child's answer. Raises RuntimeError when it died or took too long, and is gone then."""
        assert self._child.stdin and self._child.stdout
        timer = threading.Timer(self._seconds, self._child.kill)
        timer.start()
        try:
            with contextlib.suppress(OSError):
                hosting.write_frame(self._child.stdin, message)
                if (answer := hosting.read_frame(self._child.stdout)) is not None:
                    return answer
        finally:
            timer.cancel()
        self.close()
        raise RuntimeError(
            f"the process of the module ended (status {self._child.returncode}): it crashed, or worked for more than "
            f"{self._seconds:g} s on one output"
        )

    def close(self) -> None:
        """End the child and remove its folder."""
        atexit.unregister(self.close)
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            with contextlib.suppress(OSError):
                if stream:
                    stream.close()
        shutil.rmtree(self._place, ignore_errors=True)


def environment(given: Mapping[str, str], place: str) -> dict[str, str]:
    """What the child may see: no secret, every hub switched off, evaluate's caches in the private folder `place`."""
    caches = {f"HF_{name}_CACHE": os.path.join(place, name.lower()) for name in ("MODULES", "METRICS", "EVALUATE")}
    words = {"NLTK_DATA": given["NLTK_DATA"]} if "NLTK_DATA" in given else {}
    return {**hosting.child_environment(given), **words, **caches, **OFFLINE}


# The child


def main(place: str) -> None:
    """Serve one parent until its end of the pipe is closed."""
    incoming, outgoing = hosting._take_the_pipes()
    hosting._leave_the_network()
    hosting._no_core_dumps()
    try:
        opening = hosting.read_frame(incoming)
        if opening is None:
            return
        try:
            module = _load(opening, place)
        except Exception as error:
            hosting.write_frame(outgoing, {"failed": f"{type(error).__name__}: {error}"})
            return
        one, many = _forms(module)
        hosting.write_frame(outgoing, {"many": many})
        while (asked := hosting.read_frame(incoming)) is not None:
            references = asked["references"]
            given = {
                "predictions": asked["text"],
                "references": references[0] if one and len(references) == 1 else references,
                "sources": asked["source"],
            }
            hosting.write_frame(outgoing, _answer(module, opening, given))
    except BrokenPipeError:
        pass
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _load(opening: Mapping[str, Any], place: str) -> Any:
    """The module. Raises ValueError when it asks for what metric.json does not announce."""
    import evaluate

    # In memory: the documents would lie in a file of the cache otherwise.
    module = evaluate.load(opening["folder"], cache_dir=place, keep_in_memory=True, seed=SEED)
    wanted = module._feature_names()
    if unknown := sorted(set(wanted) - set(OURS)):
        raise ValueError(f"the module asks for the input {unknown[0]!r}; there are only {', '.join(OURS)}")
    for name, told in (("references", "needs_reference"), ("sources", "needs_source")):
        if name in wanted and not opening[told]:
            raise ValueError(f"the module reads {name}: say {told}: true in metric.json")
    return module


def _forms(module: Any) -> tuple[bool, bool]:
    """(whether the reference of an output may be a str, whether it may be a list of them)."""
    from datasets import Value  # type: ignore[import-untyped]

    features = module.features if isinstance(module.features, list) else [module.features]
    found = [isinstance(each["references"], Value) for each in features if "references" in each]
    return any(found), not all(found)


def _answer(module: Any, opening: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """{"values"} of one output; the message of an exception may quote the document, so only its type is told."""
    inputs = {name: [given[name]] for name in module._feature_names()}
    try:
        result = module.compute(**inputs, **opening["compute"])
        return {"values": {key: _number(result, key) for key in opening["keys"]}}
    except Exception as error:
        module.writer = module.buf_writer = module.data = None  # what the failed call has left must not join the next
        return {"failed": type(error).__name__}


def _number(result: Mapping[str, Any], key: str) -> float | str:
    """The number at `key`, also as a list of the one output's; else why there is none."""
    if key not in result:
        return f"the module's result has no {key!r}"
    value = result[key]
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0].tolist() if hasattr(value[0], "tolist") else value[0]
    if isinstance(value, bool) or not isinstance(value, Real):
        return f"the module's result {key!r} is of type {type(value).__name__}, which is no number"
    return float(value) if math.isfinite(value) else f"the module's result {key!r} is {value}, which is no number"


if __name__ == "__main__":
    # `python -m` runs this file as __main__; its name for everybody else is the real one.
    from evaluations.metrics import _evaluate_host

    _evaluate_host.main(sys.argv[1])
