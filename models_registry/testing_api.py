"""A chat-completion server for tests, demonstrations and benchmarks: OpenAI's and Mistral's paths on the loopback.

    python -m models_registry.testing_api --port 8099 --log calls.jsonl --latency-ms 200

It answers with the first sentence of the document, and with any fault it was told to show. Every call is on disk
before it is answered: the log is what a provider would bill, and tests compare our own ledger with it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import signal
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MODELS = ("first-sentence", "first-sentence-large")
MARKER = re.compile(r"\[\[fault:([a-z_]+)\]\]")


@dataclass(frozen=True)
class Canned:
    """An answer out of the ordinary.

    `body`: text, bytes or something for JSON; None for the normal completion. `headers`: None leaves a header out.
    `wait`: seconds before the first byte. `drip`: seconds between the bytes of the body. `reset`: the connection
    breaks with RST instead of an answer. `cut`: it ends after half of the body.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    wait: float = 0.0
    drip: float = 0.0
    reset: bool = False
    cut: bool = False


def error(status: int, message: str, *, code: str = "", kind: str = "", param: str = "", **headers: str) -> Canned:
    """An error in OpenAI's shape; underscores in header names become hyphens."""
    body = {"error": {"message": message, "type": kind or None, "code": code or None, "param": param or None}}
    return Canned(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def completion(text: str | None = "A summary.", *, finish: str = "stop", usage: Any = None, **message: Any) -> Canned:
    """A normal completion with this text; more fields of the message as keywords."""
    return Canned(body=_completion("first-sentence", text, finish, usage, message))


def _completion(model: str, text: str | None, finish: str, usage: Any, more: Mapping[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, **more}
    return {
        "id": "completion-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": _usage(10, 2) if usage is None else usage,
    }


def _usage(prompt: int, made: int) -> dict[str, Any]:
    """Tokens are words here; all counts exact and easy to check."""
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}


# What `[[fault:name]]` anywhere in a prompt asks for.
FAULTS: dict[str, Canned] = {
    "rate_limited": error(429, "Rate limit reached.", code="rate_limit_exceeded", Retry_After="1"),
    "quota": error(429, "You exceeded your current quota.", code="insufficient_quota", kind="insufficient_quota"),
    "auth": error(401, "Incorrect API key provided.", code="invalid_api_key"),
    "forbidden": error(403, "Not permitted."),
    "unavailable": error(503, "The server is overloaded."),
    "broken": error(500, "Internal error."),
    "unknown_model": error(404, "The model does not exist.", code="model_not_found"),
    "too_long": error(400, "This model's maximum context length is 10 tokens.", code="context_length_exceeded"),
    "filtered": completion("", finish="content_filter"),
    "refused": completion(None, refusal="I cannot help with that."),
    "empty": completion(""),
    "html": Canned(body="<html><body>It works!</body></html>", headers={"Content-Type": "text/html"}),
    "bad_json": Canned(body='{"choices": [{"mess'),
    "no_choices": Canned(body={"id": "x", "object": "chat.completion", "choices": []}),
    "oversize": Canned(body=b" " * (5 * 1024 * 1024)),
    "reset": Canned(reset=True),
    "cut": Canned(cut=True),
    "hang": Canned(wait=3600.0),
    "drip": Canned(drip=0.05),
    "redirect": Canned(302, "", {"Location": "http://169.254.169.254/latest/meta-data/"}),
}


@dataclass(frozen=True)
class Call:
    """One request as the server saw it. Headers hold the key, so they stay in memory and never go to the log."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def prompt(self) -> str:
        """The last user message."""
        messages = self.body.get("messages") or []
        texts = [str(message.get("content") or "") for message in messages if message.get("role") == "user"]
        return texts[-1] if texts else ""


class TestingApi(ThreadingHTTPServer):
    """The server; use `serve()`, or the command line."""

    __test__ = False  # its name would make pytest take it for a test class
    daemon_threads = True
    request_queue_size = 1024

    def __init__(
        self,
        address: tuple[str, int] = ("127.0.0.1", 0),
        *,
        latency_ms: float = 0.0,
        log: Path | None = None,
        key: str | None = None,
        rate: float | None = None,
    ) -> None:
        super().__init__(address, _Handler)
        self.latency_ms, self.key, self.rate = latency_ms, key, rate
        self.calls: list[Call] = []
        self.queue: deque[Canned] = deque()
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._log = log.open("ab", buffering=0) if log else None
        self._allowance, self._refilled = float(rate or 0), time.monotonic()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def origin(self) -> str:
        """http://127.0.0.1:port"""
        return f"http://{self.server_address[0]!s}:{self.port}"

    @property
    def allow(self) -> str:
        """What an administrator allows so that this server may be reached."""
        return f"{self.server_address[0]!s}:{self.port}"

    def answer(self, *answers: Canned) -> None:
        """Give these answers to the next requests, in turn."""
        self.queue.extend(answers)

    def record(self, call: Call) -> int:
        """Remember a call, on disk too, before it is answered. Returns its number, from 1."""
        with self._lock:
            self.calls.append(call)
            number = len(self.calls)
            if self._log is not None:
                line = {
                    "call": number,
                    "at": time.time(),
                    "path": call.path,
                    "model": call.body.get("model"),
                    "prompt_sha256": hashlib.sha256(call.prompt.encode()).hexdigest(),
                    "prompt_end": call.prompt[-80:],
                }
                self._log.write(json.dumps(line).encode() + b"\n")
                os.fsync(self._log.fileno())
        return number

    def next_answer(self, call: Call) -> Canned:
        with self._lock:
            if self.queue:
                return self.queue.popleft()
        if self.key is not None and call.headers.get("authorization") != f"Bearer {self.key}":
            return FAULTS["auth"]
        if (wait := self._over_rate()) is not None:
            return error(
                429, "Rate limit reached.", code="rate_limit_exceeded", retry_after_ms=str(math.ceil(wait * 1000))
            )
        if match := MARKER.search(call.prompt):
            return FAULTS.get(match[1]) or error(400, f"no such fault: {match[1]}")
        return Canned()

    def _over_rate(self) -> float | None:
        """Take one request from the bucket of one second's worth; seconds to wait when it is empty."""
        if not self.rate:
            return None
        with self._lock:
            now = time.monotonic()
            self._allowance = min(self.rate, self._allowance + (now - self._refilled) * self.rate)
            self._refilled = now
            if self._allowance >= 1:
                self._allowance -= 1
                return None
            return (1 - self._allowance) / self.rate

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is an everyday event here, not a traceback."""

    def server_close(self) -> None:
        self.closing.set()
        super().server_close()
        if self._log is not None:
            self._log.close()


class _Handler(BaseHTTPRequestHandler):
    server: TestingApi
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else delayed acknowledgements add 40 ms to an answer

    def do_GET(self) -> None:
        call = Call(self.path, self._headers(), {})
        self.server.record(call)
        if self.server.queue:
            self._give(call, self.server.next_answer(call))
        elif self.path.endswith("/models"):
            capabilities = {"completion_chat": True}
            entries = [{"id": name, "object": "model", "created": 0, "capabilities": capabilities} for name in MODELS]
            self._give(call, Canned(body={"object": "list", "data": entries}))
        else:
            self._give(call, error(404, "no such path"))

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(raw)
        except ValueError:
            body = {}
        call = Call(self.path, self._headers(), body)
        self.server.record(call)
        if not self.path.endswith("/chat/completions"):
            self._give(call, error(404, "no such path"))
            return
        self.server.closing.wait(self.server.latency_ms / 1000)
        self._give(call, self.server.next_answer(call))

    def log_message(self, format: str, *args: Any) -> None:
        """The calls are the log."""

    def _headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}

    def _give(self, call: Call, canned: Canned) -> None:
        self.server.closing.wait(canned.wait)
        if canned.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        body = _bytes(answer_to(call) if canned.body is None else canned.body)
        head = [f"HTTP/1.1 {canned.status} Status"]
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **canned.headers}
        head += [f"{name}: {value}" for name, value in headers.items() if value is not None]
        self.close_connection = headers["Content-Length"] is None
        start = "\r\n".join([*head, "", ""]).encode("latin-1")
        if canned.cut:
            self.connection.sendall(start + body[: len(body) // 2])
            self.close_connection = True
        elif canned.drip:
            self.connection.sendall(start)
            for byte in body:
                self.connection.sendall(bytes([byte]))
                if self.server.closing.wait(canned.drip):
                    return
        else:
            self.connection.sendall(start + body)


def answer_to(call: Call) -> dict[str, Any]:
    """The ordinary completion: the first sentence of what follows the first empty line of the prompt."""
    prompt = call.prompt
    document = (prompt.partition("\n\n")[2] or prompt).strip()
    words = re.split(r"(?<=[.!?])\s", document, maxsplit=1)[0].split()
    limit = call.body.get("max_completion_tokens") or call.body.get("max_tokens") or len(words)
    finish = "length" if len(words) > limit else "stop"
    asked = sum(len(str(message.get("content") or "").split()) for message in call.body.get("messages") or [])
    usage = _usage(asked, min(len(words), limit))
    return _completion(str(call.body.get("model")), " ".join(words[:limit]), finish, usage, {})


def _bytes(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    return (body if isinstance(body, str) else json.dumps(body)).encode()


@contextmanager
def serve(**options: Any) -> Iterator[TestingApi]:
    """Run a server in a thread for as long as the block lasts; options as for `TestingApi`."""
    server = TestingApi(**options)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8099, help="0 takes a free one; the address is printed")
    parser.add_argument("--log", type=Path, help="append each call to this file, on disk before it is answered")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--key", help="refuse calls without this key")
    parser.add_argument("--rate", type=float, help="calls a second; more are answered with 429")
    given = parser.parse_args()
    server = TestingApi(
        (given.host, given.port), latency_ms=given.latency_ms, log=given.log, key=given.key, rate=given.rate
    )
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"{server.origin}/v1", flush=True)
    try:
        server.serve_forever(poll_interval=0.1)
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


if __name__ == "__main__":
    main()
