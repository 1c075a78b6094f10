"""What the chat-completion providers share: parameters on the way out, and what each kind of answer means.

Every outcome is one row of a table: an Output, or a ProviderError that says whether trying again could help. Bodies
of error answers are read to classify them and never repeated: they may hold the document, or the key. The errors
raised here have no cause and no context, since the SDKs' own errors carry both.
"""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

from models_registry.providers import Access, Failure, Output, ProviderError, Request, Spec

LONGEST_WAIT = 300.0  # seconds; a provider that asks for more is asked again then


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP, whichever SDK carried it."""

    status: int
    headers: Mapping[str, str]
    body: str


class Complete(Protocol):
    """One chat completion: messages in, answer out; transport failures leave as exceptions."""

    def __call__(self, messages: list[dict[str, str]]) -> Answer: ...


# --- What goes out ---------------------------------------------------------------------------------------------------


def model_name(spec: Spec) -> str:
    """The provider's name for the model: `model`, or what follows the scheme in `uri`."""
    return str(spec.get("model") or str(spec.get("uri", "")).partition("://")[2]).strip()


def whole(low: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= low


def number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _stops(value: Any) -> bool:
    texts = [value] if isinstance(value, str) else value
    return isinstance(texts, list | tuple) and all(isinstance(text, str) and text for text in texts)


@dataclass(frozen=True)
class Parameter:
    """A generation parameter: its name on the wire, and which values make sense."""

    wire: str
    fits: Callable[[Any], bool]
    words: str


COMMON: dict[str, Parameter] = {
    "max_new_tokens": Parameter("max_tokens", whole(1), "a whole number of at least 1"),
    "temperature": Parameter("temperature", number(0, 2), "a number from 0 to 2"),
    "top_p": Parameter("top_p", number(0, 1), "a number from 0 to 1"),
    "seed": Parameter("seed", whole(0), "a whole number of at least 0"),
    "frequency_penalty": Parameter("frequency_penalty", number(-2, 2), "a number from -2 to 2"),
    "presence_penalty": Parameter("presence_penalty", number(-2, 2), "a number from -2 to 2"),
    "stop": Parameter("stop", _stops, "a text or a list of texts"),
}
EFFORT = Parameter("reasoning_effort", lambda value: isinstance(value, str) and bool(value), "a word such as low")


def wrong_with(spec: Spec, known: Mapping[str, Parameter]) -> list[str]:
    """What is wrong with the model's name or the generation parameters, in words; nothing is ever dropped silently."""
    problems = [] if model_name(spec) else ["no model is named; give its name, for example gpt-4o-mini"]
    given = spec.get("generation") or {}
    if not isinstance(given, Mapping):
        return [*problems, "the generation parameters must be a table of names and values"]
    for name, value in given.items():
        if value is None:
            continue  # None asks for the provider's own default
        if name not in known:
            problems.append(f"generation parameter {name!r} is not known here (known: {', '.join(sorted(known))})")
        elif not known[name].fits(value):
            problems.append(f"generation parameter {name} must be {known[name].words}, not {value!r}")
    return problems


def refuse(problems: Sequence[str]) -> None:
    """Raises ProviderError(code="bad_parameters") where there are problems."""
    if problems:
        raise ProviderError("; ".join(problems), code="bad_parameters", failure="stop")


def on_the_wire(spec: Spec, known: Mapping[str, Parameter]) -> dict[str, Any]:
    """The generation parameters under the provider's names."""
    given = spec.get("generation") or {}
    return {known[name].wire: value for name, value in given.items() if value is not None}


def usable_key(access: Access, provider: str, variable: str = "") -> str:
    """The key, trimmed. Raises ProviderError(code="no_key") before any call is made, or "auth" for a damaged key."""
    key = access.key.strip()
    if not key:
        also = f", or set {variable} and restart" if variable else ""
        raise ProviderError(
            f"{provider} needs an API key: add one to its connection (Models, Connections){also}",
            code="no_key",
            failure="stop",
        )
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        # Found now because the HTTP library's own error would quote the header, key and all.
        raise ProviderError(
            f"the key for {provider} holds a line break, a space or a character outside ASCII; paste it again",
            code="auth",
            failure="stop",
        )
    return key


# --- What comes back -------------------------------------------------------------------------------------------------


class ChatSession:
    """One model behind one connection; safe to share between threads."""

    def __init__(
        self,
        *,
        model: str,
        where: str,
        system: str,
        sent: Mapping[str, Any],
        complete: Complete,
        close: Callable[[], None],
        facts: Mapping[str, Any],
    ) -> None:
        self._model, self._where, self._system = model, where, system
        self._sent, self._complete, self._close = dict(sent), complete, close
        self._facts = dict(facts)
        self._served: dict[str, str] = {}

    def generate(self, requests: Sequence[Request]) -> Iterator[list[Output]]:
        for request in requests:
            yield [self._answer(request)]

    def describe(self) -> dict[str, Any]:
        """Facts for the record; what the server says it served is known after the first answer."""
        return {
            "model": self._model,
            "host": self._where,
            "parameters": dict(self._sent),
            **self._facts,
            **self._served,
        }

    def close(self) -> None:
        self._close()

    def _answer(self, request: Request) -> Output:
        if request.prompt is None and not request.messages:
            raise ProviderError(
                f"no prompt was made for {self._model}; give the candidate a prompt that contains the document",
                code="no_prompt",
                failure="stop",
            )
        messages = [{"role": "system", "content": self._system}] if self._system else []
        messages += [dict(each) for each in request.messages] or [{"role": "user", "content": request.prompt or ""}]
        answer, failure, began = None, None, time.perf_counter()
        try:
            answer = self._complete(messages)
        except Exception as error:  # the boundary to two SDKs: whatever they raise becomes a row of the table
            failure = meaning_of(error, self._where)
        latency_ms = round((time.perf_counter() - began) * 1000)
        if answer is None:
            # Raised here, outside of `except`, so that it has no context: SDK errors quote headers and bodies.
            raise failure or malformed(self._where, "nothing")
        if answer.status != 200:
            return failed(answer, request.key, self._model, self._where, self._sent, latency_ms)
        output, served = completed(answer, request.key, self._where, latency_ms)
        self._served.update(served)
        return output


def malformed(where: str, what: str) -> ProviderError:
    return ProviderError(
        f"{where} answered with {what} where an API would answer; check the base URL",
        code="malformed_response",
        failure="retry",
    )


def completed(answer: Answer, key: int, where: str, latency_ms: int) -> tuple[Output, dict[str, str]]:
    """Read a chat completion. Raises ProviderError(code="malformed_response") where it is none.

    Returns the output, and what the server says about itself (`served_model`, `system_fingerprint`).
    """
    document = _json_object(answer.body)
    if document is None:
        raise malformed(where, "a web page" if answer.body.lstrip()[:1] == "<" else "no JSON object")
    choice = _first(document.get("choices"))
    message = choice.get("message") if choice else None
    if choice is None or not isinstance(message, Mapping):
        raise malformed(where, "no choice")
    told = _content(message.get("content"))
    if told is None:
        raise malformed(where, "content that is no text")
    text, reasoning = map(_storable, _split_reasoning(*told, message))
    finish = str(choice.get("finish_reason") or "")[:40]
    finish = "length" if finish == "model_length" else finish  # Mistral's word for the model's own limit
    if finish == "error":
        raise ProviderError(
            f"{where} broke off while generating; it is tried again", code="unavailable", failure="retry"
        )
    fields: dict[str, Any] = {
        "key": key,
        "reasoning": reasoning,
        "finish_reason": finish,
        "latency_ms": latency_ms,
        **_usage(document.get("usage")),
    }
    served = {
        name: str(document[source])[:200]
        for name, source in (("served_model", "model"), ("system_fingerprint", "system_fingerprint"))
        if document.get(source)
    }
    refusal = message.get("refusal")
    if finish == "content_filter" or (isinstance(refusal, str) and refusal):
        error = "the provider withheld the answer (content filter or refusal); asking again would not change it"
        withheld = text or _storable(refusal if isinstance(refusal, str) else "")
        return Output(status="refused", text=withheld, error_code="content_filter", error=error, **fields), served
    if not text.strip():
        return Output(status="empty", error_code="empty_output", error=_why_empty(finish, reasoning), **fields), served
    return Output(status="ok", text=text, **fields), served


def _storable(text: str) -> str:
    """JSON can spell a NUL and half of a surrogate pair, Postgres can hold neither; U+FFFD marks where one was."""
    return re.sub("[\0\ud800-\udfff]", "\ufffd", text)


def _why_empty(finish: str, reasoning: str) -> str:
    if finish == "length":
        spent = "on reasoning " if reasoning else ""
        return f"the whole token allowance was spent {spent}before any answer; raise max_new_tokens"
    return "the model answered with an empty text"


def _first(choices: Any) -> Mapping[str, Any] | None:
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) else None


def _content(content: Any) -> tuple[str, str] | None:
    """Text and reasoning of a message's content: a text, nothing, or parts. None where it is something else."""
    if content is None:
        return "", ""
    if isinstance(content, str):
        return content, ""
    if not isinstance(content, list):
        return None
    text, reasoning = [], []
    for part in content:
        if not isinstance(part, Mapping):
            return None
        if part.get("type") == "thinking":
            inner = _content(part.get("thinking"))
            reasoning.append(inner[0] if inner else "")
        else:
            text.append(str(part.get("text") or ""))
    return "".join(text), "".join(reasoning)


def _split_reasoning(text: str, reasoning: str, message: Mapping[str, Any]) -> tuple[str, str]:
    """Reasoning comes in a field of its own (vLLM, DeepSeek), or before `</think>`, the opening tag often missing."""
    for name in ("reasoning_content", "reasoning"):
        if isinstance(message.get(name), str):
            reasoning += message[name]
    before, tag, after = text.partition("</think>")
    if tag:
        return after.strip(), reasoning + before.replace("<think>", "", 1).strip()
    if text.lstrip().startswith("<think>"):  # cut off while still reasoning
        return "", reasoning + text.replace("<think>", "", 1).strip()
    return text.strip(), reasoning


def _usage(usage: Any) -> dict[str, int | None]:
    """Token counts as reported; None where they are not. Hosted models read the whole input or refuse it."""
    usage = usage if isinstance(usage, Mapping) else {}
    details = usage.get("prompt_tokens_details")
    details = details if isinstance(details, Mapping) else {}
    prompt = _count(usage.get("prompt_tokens"))
    cached = [details.get("cached_tokens"), usage.get("num_cached_tokens"), usage.get("prompt_cache_hit_tokens")]
    return {
        "input_tokens": prompt,
        "input_tokens_read": prompt,
        "cached_tokens": next((count for count in map(_count, cached) if count is not None), None),
        "output_tokens": _count(usage.get("completion_tokens")),
    }


def _count(value: Any) -> int | None:
    return value if whole(0)(value) and value < 2**31 else None  # more is a fault, and no column holds it


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):  # RecursionError: ten thousand opening brackets
        return None
    return document if isinstance(document, dict) else None


def listed(ask: Callable[[], Answer], where: str) -> list[str]:
    """Names of the models in an answer from /models, in order of name. Raises ProviderError."""
    answer, failure = None, None
    try:
        answer = ask()
    except Exception as error:  # the boundary to two SDKs, as in ChatSession
        failure = meaning_of(error, where)
    if answer is None:
        raise failure or malformed(where, "nothing")
    if answer.status != 200:
        failed(answer, 0, "(list of models)", where, {})
        raise malformed(where, f"status {answer.status}")
    entries = (_json_object(answer.body) or {}).get("data")
    if not isinstance(entries, list):
        raise malformed(where, "no list of models")
    names = (entry.get("id") for entry in entries if isinstance(entry, Mapping))
    return sorted({name for name in names if isinstance(name, str) and name})


# --- What went wrong -------------------------------------------------------------------------------------------------

TOO_LONG = re.compile(
    r"context[ _-]?(?:length|window|size)|exceed_context|maximum context|too large for model|prompt (?:is )?too long"
    r"|prompt contains \d+ tokens|input is too long|reduce the length|inputs?` tokens",
    re.IGNORECASE,
)
FILTERED = re.compile(
    r"content_filter|content_policy|content management policy|moderation|invalid_prompt", re.IGNORECASE
)
NO_MODEL = re.compile(
    r"invalid[_ ]model\b|model_not_found|(?:no such|unknown) model|model\b.{0,200}?(?:not found|does not exist)",
    re.IGNORECASE,
)
NO_MONEY = re.compile(
    r"insufficient_(?:quota|funds|balance)|billing_(?:hard_limit|not_active)|exceeded your current quota"
    r"|insufficient (?:quota|credit|balance|funds)|(?:monthly|spend\w*|billing)(?: \w+)? (?:limit|cap)",
    re.IGNORECASE,
)


def failed(
    answer: Answer, key: int, model: str, where: str, sent: Mapping[str, Any], latency_ms: int | None = None
) -> Output:
    """An answer that is no success: an Output where it concerns this example, ProviderError where it does not."""
    status, clue = answer.status, _clue(answer.body)
    if status == 413 or (status in (400, 422) and TOO_LONG.search(clue.all)):
        error = f"the document and prompt are longer than {model} can read; shorten them or choose a longer window"
        return Output(key=key, status="error", error_code="input_too_long", error=error, latency_ms=latency_ms)
    if status in (400, 403) and FILTERED.search(clue.all):
        error = f"{where} refuses this document (content filter); asking again would not change it"
        return Output(key=key, status="refused", error_code="content_filter", error=error, latency_ms=latency_ms)
    if status == 400 and not (NO_MODEL.search(clue.all) or NO_MONEY.search(clue.all) or _parameter(clue, sent)):
        error = f"{where} rejected this request (400); if all examples fail so, look at the prompt and the parameters"
        return Output(key=key, status="error", error_code="rejected", error=error, latency_ms=latency_ms)
    raise _status_error(answer, clue, model, where, sent)


def _status_error(answer: Answer, clue: _Clue, model: str, where: str, sent: Mapping[str, Any]) -> ProviderError:
    """The row of the table for an answer that concerns more than this example."""
    status = answer.status
    if status == 402 or (status in (400, 403, 429) and NO_MONEY.search(clue.all)):
        return _stop(f"the account at {where} is out of quota or credit ({status}); top it up, then resume", "quota")
    if status == 429:
        message = f"{where} asks for a slower pace (429)"
        return ProviderError(message, code="rate_limited", failure="retry", retry_after=retry_after(answer.headers))
    if status in (401, 403):
        verb = "does not accept the key" if status == 401 else "does not permit this key to use the model"
        return _stop(f"{where} {verb} ({status}); replace the key in the connection, then resume", "auth")
    if status in (404, 410) or (status == 400 and NO_MODEL.search(clue.all)):
        text = f"{where} knows no model {model!r} at this address ({status}); check the model's name and the base URL"
        return _stop(text, "unknown_model")
    if status in (408, 409, 425) or status >= 500:
        message = f"{where} could not answer now ({status})"
        return ProviderError(message, code="unavailable", failure="retry", retry_after=retry_after(answer.headers))
    if 300 <= status < 400:
        text = f"{where} redirects to another address ({status}), which is not followed; enter the final base URL"
        return _stop(text, "redirected")
    if status < 300:
        return malformed(where, f"status {status}")
    culprit = _parameter(clue, sent)
    cure = f"change or remove {culprit}" if culprit else "look at the model's parameters"
    return _stop(f"{where} rejects how {model} is asked ({status}); {cure}", "bad_request")


def _stop(message: str, code: str) -> ProviderError:
    return ProviderError(message, code=code, failure="stop")


@dataclass(frozen=True)
class _Clue:
    """What an error body gives away about its reason: for matching, never for showing."""

    all: str
    parameter: str


def _clue(body: str) -> _Clue:
    """Servers agree on {"error": {message, type, code, param}}, on {message, type, code} or on {"detail": …}."""
    document = _json_object(body)
    error = body if document is None else document.get("error", document)
    if not isinstance(error, Mapping):
        return _Clue(str(error)[:4000], "")
    parts = [error.get(name) for name in ("code", "type", "param", "message", "detail")]
    return _Clue(" ".join(str(part)[:4000] for part in parts if part is not None), str(error.get("param") or "")[:200])


def _parameter(clue: _Clue, sent: Mapping[str, Any]) -> str | None:
    """Which of the parameters that we sent the server complains about."""
    return next((name for name in sent if name == clue.parameter or f"'{name}'" in clue.all), None)


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds to wait, 0–300, from `retry-after-ms` or `Retry-After` (seconds or HTTP-date, RFC 9110 §10.2.3).

    None where neither makes sense: the caller then backs off by its own rule.
    """
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    for name, divisor in (("retry-after-ms", 1000), ("retry-after", 1)):
        if re.fullmatch(r"[+-]?\d+(?:\.\d*)?", lower.get(name, "")):
            return min(max(float(lower[name]) / divisor, 0.0), LONGEST_WAIT)
    try:
        date = parsedate_to_datetime(lower.get("retry-after", ""))
    except (ValueError, TypeError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return min(max((date - (now or datetime.now(UTC))).total_seconds(), 0.0), LONGEST_WAIT)


def meaning_of(error: BaseException, where: str) -> ProviderError:
    """The row of the table for a request that got no usable answer. The error's own text is not repeated."""
    import httpx2

    from lumigator.egress import EgressRefused, ResponseTooLarge

    chain = list(_chain(error))
    for link in chain:
        if isinstance(link, ProviderError):
            return link
        if isinstance(link, ResponseTooLarge):
            return malformed(where, "more data than a completion can be")
        if isinstance(link, EgressRefused):
            return _stop(f"{where} may not be reached: {link}", "egress_refused")
    shaking_hands = any(isinstance(link, httpx2.ConnectError) for link in chain)
    if shaking_hands and any(isinstance(link, ssl.SSLError) and not _cut_off(link) for link in chain):
        text = (
            f"no secure connection to {where}: its certificate or protocol was not accepted; check https and the host"
        )
        return _stop(text, "tls")
    rows: list[tuple[tuple[type[Exception], ...], str, str, Failure]] = [
        ((httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ConnectError), "cannot be reached", "unreachable", "retry"),
        ((httpx2.TimeoutException,), "did not answer in time; the call may have been billed", "timeout", "unknown"),
        ((httpx2.DecodingError,), "answered with data that cannot be decoded", "malformed_response", "retry"),
        ((httpx2.UnsupportedProtocol, httpx2.InvalidURL), "is not a web address", "bad_address", "stop"),
        (
            (httpx2.NetworkError, httpx2.RemoteProtocolError),
            "broke the connection after the request was sent; the call may have been billed",
            "connection_lost",
            "unknown",
        ),
    ]
    for kinds, words, code, failure in rows:
        if any(isinstance(link, kinds) for link in chain):
            return ProviderError(f"{where} {words}", code=code, failure=failure)
    name = type(error).__name__
    return ProviderError(
        f"the call to {where} failed in an unforeseen way ({name})", code="unexpected", failure="unknown"
    )


def _cut_off(error: BaseException) -> bool:
    return isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes. SDKs wrap; what they wrap tells when in the exchange it happened."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
