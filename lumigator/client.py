"""The Python client: Lumigator's API in a few calls, for notebooks and scripts. It imports no Django.

    with Client("http://127.0.0.1:8000", token) as lumigator:
        dataset = lumigator.datasets.upload("calls.jsonl", source_column="transcript")
        experiment = lumigator.experiments.create(dataset=dataset["id"], models=["facebook/bart-large-cnn"])
        lumigator.experiments.start(experiment["id"])
        lumigator.experiments.wait(experiment["id"])
        print(lumigator.experiments.comparison(experiment["id"])["recommendation"]["sentence"])

Every POST carries an `Idempotency-Key`, so it can be, and is, sent again when the connection fails: the server does
it once. Errors are LumigatorError, in the server's words.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2

Json = dict[str, Any]
TRIES = 4
PASSING = (429, 502, 503, 504)
"""Answers that another try may better; the server has not done what was asked."""
LONGEST_PAUSE = 30.0
POLL_SECONDS = (0.5, 5.0)
"""`wait` asks first after this long, and at most this far apart."""


class LumigatorError(Exception):
    """What went wrong, in the server's words; `request_id` finds the request in its log.

    `status` is 0 where no answer came. `errors` is [{loc, msg}], one for each wrong field.
    """

    def __init__(
        self, detail: str, *, status: int = 0, errors: Sequence[Mapping[str, str]] = (), request_id: str = ""
    ) -> None:
        super().__init__(f"{detail} (request {request_id})" if request_id else detail)
        self.detail = detail
        self.status = status
        self.errors = [dict(error) for error in errors]
        self.request_id = request_id


class Client:
    """One server, one token. Close it, or use it in a `with`."""

    def __init__(self, base_url: str, token: str, *, timeout: float = 60.0) -> None:
        """`timeout` in seconds, for one answer. The token is sent to this address only: redirects are not followed."""
        if not base_url.startswith(("http://", "https://")):
            raise LumigatorError(f"{base_url!r} is no address: it begins with http:// or https://")
        self._http = httpx2.Client(
            base_url=base_url.rstrip("/") + "/api/v1/",
            headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
            timeout=timeout,
        )
        self.datasets = Datasets(self)
        self.models = Models(self)
        self.experiments = Experiments(self)
        self.ground_truth = GroundTruth(self)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({str(self._http.base_url)!r})"

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Json:
        """The JSON document at `path` (below /api/v1/). Raises LumigatorError."""
        return _document(self.send("GET", path, params={k: v for k, v in params.items() if v is not None}))

    def post(self, path: str, body: Json | None = None) -> Json:
        """POST once, however often it is sent. Raises LumigatorError."""
        return _document(self.send("POST", path, json=body or {}))

    def pages(self, path: str, **params: Any) -> Iterator[Json]:
        """Every element of a list, page after page. Raises LumigatorError."""
        page = self.get(path, **params)
        yield from page["results"]
        while page.get("next"):
            # Only the question is taken from the link: behind a proxy its host may be another, and gets no token.
            page = self.get(path, **dict(httpx2.URL(page["next"]).params))
            yield from page["results"]

    def send(self, method: str, path: str, *, file: Path | None = None, **request: Any) -> httpx2.Response:
        """Send, and send again what fails in passing. Raises LumigatorError for every answer from 300 on, but 304."""
        headers = {**request.pop("headers", {})}
        if method == "POST":
            headers.setdefault("Idempotency-Key", uuid4().hex)
        for tries in range(1, TRIES + 1):
            try:
                response = self._send_once(method, path, file, headers=headers, **request)
            except httpx2.TransportError as exc:
                if tries == TRIES or isinstance(exc, httpx2.UnsupportedProtocol):
                    raise LumigatorError(f"{self._http.base_url} does not answer: {exc}") from exc
                _sleep(tries, None)
                continue
            if response.status_code in PASSING and tries < TRIES:
                _sleep(tries, response.headers.get("Retry-After"))
                continue
            break
        if response.status_code >= 300 and response.status_code != 304:
            raise _error(response)
        return response

    def _send_once(self, method: str, path: str, file: Path | None, **request: Any) -> httpx2.Response:
        if file is None:
            return self._http.request(method, path, **request)
        with file.open("rb") as handle:  # opened for each try: the one before may have read it
            return self._http.request(method, path, files={"file": (file.name, handle)}, **request)


def _sleep(tries: int, retry_after: str | None) -> None:
    """What the server asks for, else a random part of 0.4, 0.8, 1.6 … seconds."""
    if retry_after and retry_after.isdecimal():
        time.sleep(min(float(retry_after), LONGEST_PAUSE))
    else:
        time.sleep(random.uniform(0.05, 0.2 * 2**tries))


def _document(response: httpx2.Response) -> Json:
    try:
        found = response.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise LumigatorError(f"{response.request.url} did not answer with JSON: is this a Lumigator server?")
    return found


def _error(response: httpx2.Response) -> LumigatorError:
    request_id = response.headers.get("X-Request-Id", "")
    if 300 <= response.status_code < 400:
        there = response.headers.get("Location", "elsewhere")
        said = f"the server sends us to {there}: give its own address, for example with https://"
        return LumigatorError(said, status=response.status_code, request_id=request_id)
    try:
        problem = response.json()
        detail, errors = str(problem["detail"]), problem.get("errors") or []
    except (ValueError, KeyError, TypeError):
        detail, errors = f"HTTP {response.status_code} from {response.request.url}", []
    return LumigatorError(detail, status=response.status_code, errors=errors, request_id=request_id)


class Datasets:
    def __init__(self, client: Client) -> None:
        self._client = client

    def upload(
        self,
        path: str | Path,
        *,
        name: str = "",
        source_column: str | None = None,
        reference_columns: Sequence[str] | None = None,
        id_column: str | None = None,
        group_column: str | None = None,
        tag_columns: Sequence[str] | None = None,
        privacy: str | None = None,
        again: bool = False,
        wait: bool = True,
    ) -> Json:
        """A file as a dataset that is ready. Columns that are not given are guessed from their names. The same file
        a second time gives the dataset that it made (`existing`), unless `again`. Without `wait` a large file may
        come back with the state "importing": `wait(id)` waits for it.
        Raises LumigatorError naming row and column of what is wrong, and FileNotFoundError."""
        asked = {
            "name": name,
            "source_column": source_column,
            "reference_columns": list(reference_columns) if reference_columns is not None else None,
            "id_column": id_column,
            "group_column": group_column,
            "tag_columns": list(tag_columns) if tag_columns is not None else None,
            "privacy": privacy,
            "again": "true" if again else None,
        }
        data = {field: value for field, value in asked.items() if value is not None}
        made = _document(self._client.send("POST", "datasets/", file=Path(path), data=data))
        return self.wait(made["id"]) if wait and made["state"] == "importing" else made

    def wait(self, dataset: int, *, timeout: float | None = None) -> Json:
        """The dataset once it is ready. Raises LumigatorError when its file is refused, and TimeoutError after
        `timeout` seconds."""
        until = time.monotonic() + timeout if timeout is not None else float("inf")
        pause = POLL_SECONDS[0]
        while (found := self.get(dataset))["state"] == "importing":
            if time.monotonic() + pause > until:
                raise TimeoutError(f"dataset {dataset} is not ready after {timeout:g} seconds")
            time.sleep(pause)
            pause = min(pause * 1.5, POLL_SECONDS[1])
        if found["state"] == "failed":
            told = self._client.send("GET", f"datasets/{dataset}/problems/").json()
            errors = [{"loc": _where(one), "msg": f"{one['message']} {one['cure']}"} for one in told]
            raise LumigatorError(f"dataset {dataset} was refused: {found['problem']}", errors=errors)
        return found

    def delete(self, dataset: int) -> None:
        """Delete it, or cancel its import."""
        self._client.send("DELETE", f"datasets/{dataset}/")

    def list(self) -> list[Json]:
        return [*self._client.pages("datasets/")]

    def get(self, dataset: int) -> Json:
        return self._client.get(f"datasets/{dataset}/")


def _where(problem: Json) -> str:
    if problem["row"] is None:
        return "file"
    return f"row {problem['row']}, column {problem['column']}" if problem["column"] else f"row {problem['row']}"


class Models:
    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self) -> list[Json]:
        """Every model of the registry."""
        return [*self._client.pages("models/")]


class Experiments:
    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, *, dataset: int, models: Sequence[str | Json] = (), **fields: Any) -> Json:
        """A draft, or with `start=True` a started experiment. `fields`: name, task, prompt, metrics, primary_metric,
        metric_options, margin, sample, budget_usd, baselines, gates, reuse_outputs. Raises LumigatorError naming every
        wrong field."""
        return self._client.post("experiments/", {"dataset": dataset, "models": list(models), **fields})

    def list(self, *, state: str | None = None) -> list[Json]:
        return [*self._client.pages("experiments/", state=state)]

    def get(self, experiment: int) -> Json:
        return self._client.get(f"experiments/{experiment}/")

    def plan(self, experiment: int) -> Json:
        """Calls, tokens, cost and detectable difference, before the start."""
        return self._client.get(f"experiments/{experiment}/plan/")

    def start(self, experiment: int) -> Json:
        return self._client.post(f"experiments/{experiment}/start/")

    def pause(self, experiment: int) -> Json:
        return self._client.post(f"experiments/{experiment}/pause/")

    def resume(self, experiment: int) -> Json:
        return self._client.post(f"experiments/{experiment}/resume/")

    def cancel(self, experiment: int) -> Json:
        return self._client.post(f"experiments/{experiment}/cancel/")

    def delete(self, experiment: int) -> None:
        self._client.send("DELETE", f"experiments/{experiment}/")

    def progress(self, experiment: int) -> Json:
        return self._client.get(f"experiments/{experiment}/progress/")

    def wait(
        self, experiment: int, *, progress: Callable[[Json], object] | None = None, timeout: float | None = None
    ) -> Json:
        """Wait for the end; `progress` is called whenever something moved. The last progress document.

        Raises LumigatorError when the experiment is paused (with the reason) or was never started, since it would not
        end by itself, and TimeoutError after `timeout` seconds.
        """
        until = time.monotonic() + timeout if timeout is not None else float("inf")
        pause, tag, seen = POLL_SECONDS[0], "", None
        while True:
            response = self._client.send(
                "GET", f"experiments/{experiment}/progress/", headers={"If-None-Match": tag} if tag else {}
            )
            if response.status_code != 304:
                tag, seen = response.headers.get("ETag", ""), _document(response)
                pause = POLL_SECONDS[0]
                if progress:
                    progress(seen)
                if seen["is_final"]:
                    return seen
                _check_that_it_moves(f"experiment {experiment}", seen)
            if time.monotonic() + pause > until:
                raise TimeoutError(f"experiment {experiment} has not ended after {timeout:g} seconds")
            time.sleep(pause)
            pause = min(pause * 1.5, POLL_SECONDS[1])

    def add_model(self, experiment: int, model: str, **fields: Any) -> Json:
        """One more candidate; its work is done at the next start. `fields`: label, prompt, generation."""
        return self._client.post(f"experiments/{experiment}/candidates/", {"model": model, **fields})

    def add_outputs(self, experiment: int, label: str, outputs: str | Path | Sequence[str | Json]) -> Json:
        """Outputs made elsewhere: a file, texts in the dataset's order, or [{index | id, output}]."""
        path = f"experiments/{experiment}/candidates/"
        if isinstance(outputs, str | Path):
            return _document(self._client.send("POST", path, file=Path(outputs), data={"label": label}))
        return self._client.post(path, {"label": label, "predictions": list(outputs)})

    def comparison(self, experiment: int, *, metric: str | None = None) -> Json:
        """The comparison document, for the metric part that decides, or for another."""
        return self._client.get(f"experiments/{experiment}/comparison/", metric=metric)

    def examples(
        self, experiment: int, *, sort: str = "spread", order: str | None = None, metric: str | None = None
    ) -> Iterator[Json]:
        """Every document with its scores, the largest disagreement first."""
        return self._client.pages(f"experiments/{experiment}/examples/", sort=sort, order=order, metric=metric)

    def example(self, experiment: int, index: int) -> Json:
        """One document with every output, side by side."""
        return self._client.get(f"experiments/{experiment}/examples/{index}/")

    def export(self, experiment: int, path: str | Path, *, format: str = "jsonl") -> Path:
        """Every output with its scores, streamed into the file at `path` ("jsonl" or "csv")."""
        target = Path(path)
        address = f"experiments/{experiment}/export/"
        with self._client._http.stream("GET", address, params={"format": format}) as response:
            if response.status_code >= 300:
                response.read()
                raise _error(response)
            with target.open("wb") as handle:
                for chunk in response.iter_bytes():
                    handle.write(chunk)
        return target


def _check_that_it_moves(what: str, seen: Json) -> None:
    if seen["state"] == "paused":
        why = seen["problem"] or f"by {seen['pause_reason'] or 'somebody'}"
        raise LumigatorError(f"{what} is paused: {why}")
    if seen["state"] == "draft":
        raise LumigatorError(f"{what} was never started: start it first")


class GroundTruth:
    """References that a model drafts and people approve."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, *, dataset: int, model: str | Json, **fields: Any) -> Json:
        """Ask `model` to draft a reference for every document; with `start=True` at once. `fields`: name, prompt,
        sample, budget_usd. Raises LumigatorError naming every wrong field."""
        return self._client.post("ground-truth/", {"dataset": dataset, "model": model, **fields})

    def list(self) -> list[Json]:
        return [*self._client.pages("ground-truth/")]

    def get(self, ground_truth: int) -> Json:
        """Its progress, decisions, agreement and publications."""
        return self._client.get(f"ground-truth/{ground_truth}/")

    def start(self, ground_truth: int) -> Json:
        return self._client.post(f"ground-truth/{ground_truth}/start/")

    def wait(self, ground_truth: int, *, timeout: float | None = None) -> Json:
        """Wait until the drafting has ended: what `get` tells then. Raises LumigatorError when it is paused or was
        never started, and TimeoutError after `timeout` seconds."""
        until = time.monotonic() + timeout if timeout is not None else float("inf")
        pause = POLL_SECONDS[0]
        while not (found := self.get(ground_truth))["is_final"]:
            _check_that_it_moves(f"ground truth {ground_truth}", found["progress"])
            if time.monotonic() + pause > until:
                raise TimeoutError(f"ground truth {ground_truth} has not been drafted after {timeout:g} seconds")
            time.sleep(pause)
            pause = min(pause * 1.5, POLL_SECONDS[1])
        return found

    def items(self, ground_truth: int, *, decision: str | None = None, assignee: str | None = None) -> Iterator[Json]:
        """Every draft with what was decided. `assignee` is a user name, "me" or "nobody"."""
        return self._client.pages(f"ground-truth/{ground_truth}/items/", decision=decision, assignee=assignee)

    def decide(self, ground_truth: int, item: Json, decision: str, text: str | None = None) -> Json:
        """Save "accepted", "edited" (with its `text`), "rejected" or "unreviewed" for an item as it was read. Raises
        LumigatorError with the status 409 when somebody decided since."""
        body = {"decision": decision, "version": item["version"], "reading": item["reading"]}
        body |= {"text": text} if text is not None else {}
        path = f"ground-truth/{ground_truth}/items/{item['index']}/"
        return _document(self._client.send("PATCH", path, json=body))

    def accept_all(self, ground_truth: int) -> Json:
        """Accept what is left, unread; for admins."""
        return self._client.post(f"ground-truth/{ground_truth}/accept-all/")

    def publish(self, ground_truth: int, *, rows: str = "approved", name: str | None = None) -> Json:
        """A new dataset of the approved references; `rows` is "approved" or "all"."""
        body = {"rows": rows} | ({"name": name} if name else {})
        return self._client.post(f"ground-truth/{ground_truth}/publish/", body)
