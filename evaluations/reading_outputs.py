"""Reading outputs that were made elsewhere: what a file says of each, whichever tool wrote it; or what is wrong.

Told apart by their content:
* JSONL of {"index": n | "id": key, "output": text}
* the sample log of lm-evaluation-harness (`--log_samples`): JSONL of {doc_id, doc, resps, filtered_resps, …}
* the results of promptfoo (`promptfoo eval -o results.json`, or .jsonl): {"results": [{vars, response, …}]}, in layers
* CSV with an `index` or `id` column and one column of outputs
* plain text, one output a line, in the dataset's order
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypedDict

OUTPUT_COLUMNS = ("output", "prediction", "predictions", "summary", "text")
LIMIT_CELL = 1 << 20
FILTERS = 5
DIGITS = re.compile(r"\s*[0-9]{1,18}\s*")


class BadOutputs(ValueError):
    """The file cannot be read; the words name the row and the cure."""


class Output(TypedDict):
    """One output: `id` or `index` say of which document; with neither, its place in the file does."""

    id: Any
    index: int | None
    output: str


def outputs(data: bytes, name: str) -> Iterator[Output]:
    """The outputs of the file called `name`, in its order. Raises BadOutputs."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise BadOutputs(f"{name} is not UTF-8 (byte {exc.start}): save it as UTF-8") from None
    first = re.search(r"\S", text)
    if not first:
        raise BadOutputs(f"{name} is empty")
    if first[0] == "{":
        return _of_json(text, name)
    if delimiter := _delimiter(text):
        return _of_csv(text, name, delimiter)
    return _of_lines(text, name)


def _of_lines(text: str, name: str) -> Iterator[Output]:
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        yield {"id": None, "index": None, "output": _clean(line.removesuffix("\r"), name, number)}


# JSON


def _of_json(text: str, name: str) -> Iterator[Output]:
    """A promptfoo file is one object over many lines, or on one line; all others have an object a line."""
    lines = _Lines(text, name)
    try:
        first = json.loads(lines.first)
    except (ValueError, RecursionError):
        try:
            first = json.loads(text) if '"results"' in text else None
        except (ValueError, RecursionError):
            first = None
    if isinstance(first, dict) and "results" in first and "output" not in first:
        return _of_promptfoo(first, name)
    if isinstance(first, dict) and "vars" in first and "output" not in first:
        return _of_promptfoo({"results": [row for _, row in lines]}, name)
    if isinstance(first, dict) and "doc_id" in first and "output" not in first:
        return _of_harness(lines, name)
    return _of_objects(lines)


class _Lines:
    """The objects of a JSONL with their line numbers, as often as wanted."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        self.first = self.lines[0][1]

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        for number, line in self.lines:
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError):
                raise BadOutputs(f"{self.name}, line {number}: this is not one JSON object a line") from None


def _of_objects(lines: _Lines) -> Iterator[Output]:
    name = lines.name
    for number, row in lines:
        if not isinstance(row, dict) or not isinstance(row.get("output"), str):
            raise BadOutputs(f'{name}, line {number}: give {{"index": n or "id": key, "output": text}}')
        index = row.get("index")
        if index is not None and (not isinstance(index, int) or isinstance(index, bool)):
            raise BadOutputs(f"{name}, line {number}, index: give the document's position from 0")
        yield {"id": row.get("id"), "index": index, "output": _clean(row["output"], name, number)}


def _of_harness(lines: _Lines, name: str) -> Iterator[Output]:
    """`doc_id` is the document's position. A log that holds several filters has a line for each: the one called none
    is taken, which changes nothing, else the only one."""
    filters = list(dict.fromkeys(str(row.get("filter", "none")) for _, row in lines if isinstance(row, dict)))
    wanted = "none" if "none" in filters else filters[0]
    if len(filters) > 1 and wanted != "none":
        shown = ", ".join(one[:40] for one in filters[:FILTERS])
        raise BadOutputs(f"{name} holds the outputs of several filters ({shown}): keep the lines of one")
    for number, row in lines:
        index = row.get("doc_id") if isinstance(row, dict) else None
        if not isinstance(index, int) or isinstance(index, bool):
            raise BadOutputs(f"{name}, line {number}, doc_id: give the document's position from 0")
        if str(row.get("filter", "none")) == wanted:
            response = _only(row.get("filtered_resps", row.get("resps")))
            if not isinstance(response, str):
                raise BadOutputs(
                    f"{name}, line {number}: no generated text in filtered_resps or resps; log a task that generates "
                    "one text for each document"
                )
            yield {"id": None, "index": index, "output": _clean(response, name, number)}


def _only(value: Any) -> Any:
    """What is in lists of one: the harness writes "text", ["text"] and [["text"]]."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value


def _of_promptfoo(content: dict[str, Any], name: str) -> Iterator[Output]:
    """A result's document is what its test says in the variable `id` or `index`, else the test's place. A result
    without a response (its call failed) gives no output."""
    inner = content["results"]
    results = inner.get("results") if isinstance(inner, dict) else inner
    if not isinstance(results, list) or not all(isinstance(one, dict) for one in results):
        raise BadOutputs(f"{name}: no list of results; export it with `promptfoo eval -o results.json`")
    for what, told in _promptfoo_kinds(results):
        if len(told) > 1:
            shown = ", ".join(one[:40] for one in told[:FILTERS])
            raise BadOutputs(f"{name} holds the outputs of several {what} ({shown}): export each alone")
    for number, result in enumerate(results, 1):
        response = result.get("response")
        output = response.get("output") if isinstance(response, dict) else None
        if output is None:
            continue
        if not isinstance(output, str):
            raise BadOutputs(f"{name}, result {number}: the output is no text")
        given = result.get("vars")
        variables: dict[str, Any] = given if isinstance(given, dict) else {}
        index = variables.get("index", result.get("testIdx", number - 1))
        if isinstance(index, str) and DIGITS.fullmatch(index):
            index = int(index)
        if not isinstance(index, int) or isinstance(index, bool):
            raise BadOutputs(f"{name}, result {number}, index: give the document's position from 0")
        yield {"id": variables.get("id"), "index": index, "output": _clean(output, name, number)}


def _promptfoo_kinds(results: list[dict[str, Any]]) -> Iterable[tuple[str, list[str]]]:
    """What may be there only once: (its name, what the results call it)."""

    def provider(result: dict[str, Any]) -> Any:
        told = result.get("provider")
        return (told.get("label") or told.get("id")) if isinstance(told, dict) else told

    def prompt(result: dict[str, Any]) -> Any:
        told = result.get("prompt")
        return result.get("promptIdx", told.get("label") if isinstance(told, dict) else told)

    kinds: tuple[tuple[str, Callable[[dict[str, Any]], Any]], ...] = (("providers", provider), ("prompts", prompt))
    return [(what, list(dict.fromkeys(str(of(one)) for one in results))) for what, of in kinds]


# CSV


def _delimiter(text: str) -> str:
    """What is between the columns of a CSV; "" for any other text. Only a column `index` or `id` makes it a CSV."""
    first_line = text[: text.find("\n") + 1 or len(text)]
    for delimiter in ",;\t":
        header = {column.strip(' \r\n"').lower() for column in first_line.split(delimiter)}
        if len(header) > 1 and header & {"index", "id"}:
            return delimiter
    return ""


def _of_csv(text: str, name: str, delimiter: str) -> Iterator[Output]:
    if csv.field_size_limit() < LIMIT_CELL:
        csv.field_size_limit(LIMIT_CELL)  # one limit for the whole process; only ever raised
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns = {column.strip().lower(): column for column in _header(reader, name)}
    others = [column for column in columns if column not in ("index", "id")]
    output = next((each for each in OUTPUT_COLUMNS if each in others), others[0] if len(others) == 1 else None)
    if output is None:
        raise BadOutputs(f"{name}: which column holds the outputs? Call it `output`; there is {', '.join(others)}")
    for number, row in _numbered(reader, name):
        index = row.get(columns["index"]) if "index" in columns else None
        if index is not None and not DIGITS.fullmatch(index):
            raise BadOutputs(f"{name}, row {number}, column index: {index[:20]!r} is not a position from 0")
        yield {
            "id": row.get(columns["id"]) if "id" in columns and "index" not in columns else None,
            "index": int(index) if index is not None else None,
            "output": _clean(row.get(columns[output]) or "", name, number),
        }


def _header(reader: csv.DictReader[str], name: str) -> list[str]:
    try:
        return list(reader.fieldnames or [])
    except csv.Error as exc:
        raise BadOutputs(f"{name}, row 1: these are no column names ({exc})") from None


def _numbered(reader: csv.DictReader[str], name: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows with their numbers in the sheet, whose header is row 1."""
    number = 1
    while True:
        number += 1
        try:
            yield number, next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            raise BadOutputs(
                f"{name}, row {number}: this is not CSV ({exc}); put a cell that holds quotes or line breaks in double "
                "quotes and double every quote inside it"
            ) from None


def _clean(text: str, name: str, number: int) -> str:
    if "\0" in text or not _is_whole(text):
        raise BadOutputs(f"{name}, row {number}: the output holds a NUL or half a surrogate pair; remove it")
    return text


def _is_whole(text: str) -> bool:
    """Whether every character can be stored: JSON may spell half a surrogate pair."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False
