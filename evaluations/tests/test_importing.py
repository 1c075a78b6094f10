"""Outputs made elsewhere: every row finds its document or is named, and every document without a row is an error."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_app.ingest import ingest
from evaluations import comparing, planning
from evaluations.importing import Imported, import_bytes, import_file
from evaluations.models import Candidate, Experiment, Generation
from evaluations.planning import Refused
from evaluations.reading_outputs import BadOutputs, outputs
from evaluations.tests.engine import make_dataset, make_experiment, run

pytestmark = pytest.mark.django_db(transaction=True)
DOCUMENTS = [f"Team {number} met. It chose plan {number}. It went home." for number in range(4)]


@pytest.fixture
def experiment(atlas: Any) -> Experiment:
    return make_experiment(make_dataset(atlas, DOCUMENTS), may_be_empty=True)


@pytest.fixture
def named(atlas: Any) -> Experiment:
    """Its documents have the ids red, blue, green and gold."""
    keys = ("red", "blue", "green", "gold")
    rows = ({"id": key, "examples": text} for key, text in zip(keys, DOCUMENTS, strict=True))
    dataset = ingest(team=atlas, user=None, name="Colours", file=BytesIO(jsonl(*rows)), file_name="colours.jsonl")
    return make_experiment(dataset, may_be_empty=True)


def jsonl(*rows: Any) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def texts(imported: Imported) -> list[str]:
    return list(
        Generation.objects.filter(candidate=imported.candidate)
        .order_by("example__index")
        .values_list("text", flat=True)
    )


def refusal(experiment: Experiment, data: bytes) -> str:
    """The one sentence of the refusal, after which nothing may be left behind."""
    with pytest.raises(Refused) as caught:
        import_bytes(experiment, "theirs", data, "out.txt")
    assert not Candidate.objects.filter(experiment=experiment).exists()
    [sentence] = caught.value.errors["predictions"]
    return sentence


def test_jsonl_by_index_in_any_order(experiment: Experiment) -> None:
    rows = [{"index": index, "output": f"Plan {index}."} for index in (3, 1, 0, 2)]
    imported = import_bytes(experiment, "theirs", jsonl(*rows))
    assert texts(imported) == ["Plan 0.", "Plan 1.", "Plan 2.", "Plan 3."]
    assert imported.sentences() == ["4 outputs matched a document."]


def test_jsonl_by_id(named: Experiment) -> None:
    imported = import_bytes(named, "theirs", jsonl(*({"id": key, "output": key} for key in ("gold", "blue"))))
    assert texts(imported) == ["", "blue", "", "gold"]


def test_lines_in_the_order_of_the_documents(experiment: Experiment) -> None:
    assert texts(import_bytes(experiment, "theirs", b"One.\nTwo.\nThree.\nFour.\n")) == [
        "One.",
        "Two.",
        "Three.",
        "Four.",
    ]


def test_lines_from_windows_with_a_byte_order_mark(experiment: Experiment) -> None:
    data = "Öne.\r\nTwo.\r\nThree.\r\nFour.\r\n".encode("utf-8-sig")
    assert texts(import_bytes(experiment, "theirs", data)) == ["Öne.", "Two.", "Three.", "Four."]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_with_cells_that_hold_line_breaks(named: Experiment, delimiter: str) -> None:
    data = f'id{delimiter}summary\nblue{delimiter}"It chose,\nthen ""left"";"\nred{delimiter}Red.\n'
    assert texts(import_bytes(named, "theirs", data.encode()))[:2] == ["Red.", 'It chose,\nthen "left";']


def test_csv_by_index(experiment: Experiment) -> None:
    assert texts(import_bytes(experiment, "theirs", b"index,output\n 2 ,Two.\n0,None.\n")) == ["None.", "", "Two.", ""]


def test_a_long_output_is_no_obstacle_to_csv(experiment: Experiment) -> None:
    long = "word " * 40_000
    assert texts(import_bytes(experiment, "theirs", f"index,output\n0,{long}\n".encode()))[0] == long


def test_rows_and_documents_without_each_other_are_named_and_counted(named: Experiment) -> None:
    imported = import_bytes(named, "theirs", jsonl(*({"id": key, "output": key} for key in ("red", "pink", "grey"))))
    assert imported.sentences() == [
        "1 output matched a document.",
        "2 rows match no document: pink, grey.",
        "3 documents have no output: blue, green, gold.",
    ]
    imported.candidate.refresh_from_db()
    assert imported.candidate.spec["imported"] == {"unmatched": 2, "missing": 3}


def test_one_of_each_is_said_in_the_singular(named: Experiment) -> None:
    rows = ({"id": key, "output": key} for key in ("red", "blue", "green", "pink"))
    assert import_bytes(named, "theirs", jsonl(*rows)).sentences()[1:] == [
        "1 row matches no document: pink.",
        "1 document has no output: gold.",
    ]


def test_many_names_are_cut_and_counted(experiment: Experiment) -> None:
    rows = ({"index": 100 + number, "output": "x"} for number in range(14))
    sentence = import_bytes(experiment, "theirs", jsonl(*rows)).sentences()[1]
    assert sentence.startswith("14 rows match no document: 100, 101,")
    assert sentence.endswith("109 and 4 more.")


def test_a_missing_output_is_an_error_and_an_empty_one_is_empty(experiment: Experiment) -> None:
    imported = import_bytes(experiment, "theirs", b"One.\n\nThree.\n")
    found = Generation.objects.filter(candidate=imported.candidate).order_by("example__index")
    assert list(found.values_list("status", "error_code")) == [
        ("ok", ""), ("empty", "empty_output"), ("ok", ""), ("error", "missing_output"),
    ]  # fmt: skip


def test_only_the_documents_of_the_sample_are_asked_for(atlas: Any) -> None:
    experiment = make_experiment(make_dataset(atlas, DOCUMENTS), may_be_empty=True, sample={"n": 2, "seed": 3})
    imported = import_bytes(experiment, "theirs", b"One.\nTwo.\nThree.\nFour.\n")
    assert imported.sentences() == [
        "2 outputs matched a document.",
        "2 outputs of documents outside the sample are not used.",
    ]
    wanted = [int(index) for index in planning.sample_of(experiment)]
    assert texts(imported) == [["One.", "Two.", "Three.", "Four."][index] for index in wanted]


def test_imported_outputs_are_scored_and_compared_like_any_other(experiment: Experiment, tmp_path: Path) -> None:
    file = tmp_path / "out.txt"
    file.write_text("".join(f"Team {number} met.\n" for number in range(4)))
    import_file(experiment, "theirs", file)
    assert run(experiment).state == "completed"
    [row] = comparing.comparison(experiment)["candidates"]
    assert row["metrics"]["rougeLsum"]["mean"] == 1.0
    assert row["states"] == {"ok": 4, "error": 0, "refused": 0, "empty": 0}


def test_what_they_cost_and_where_they_were_made_is_not_claimed(experiment: Experiment) -> None:
    import_bytes(experiment, "theirs", b"One.\nTwo.\nThree.\nFour.\n")
    [row] = comparing.comparison(run(experiment))["candidates"]
    assert row["cost_usd"] is row["cost_per_1000_usd"] is None
    assert not row["is_local"]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "out.txt is empty"),
        (b" \n\n", "out.txt is empty"),
        (b"Caf\xe9\n", "out.txt is not UTF-8 (byte 3): save it as UTF-8"),
        (b'{"index": 0, "output": "x"}\n{"index": 1,', "out.txt, line 2: this is not one JSON object a line"),
        (b'{"a": ' + b"[" * 200_000, "out.txt, line 1: this is not one JSON object a line"),
        (b'{"index": 0, "text": "x"}', 'out.txt, line 1: give {"index": n or "id": key, "output": text}'),
        (b'{"index": 0, "output": 7}', 'out.txt, line 1: give {"index": n or "id": key, "output": text}'),
        (b'{"index": "0", "output": "x"}', "out.txt, line 1, index: give the document's position from 0"),
        (b'{"index": true, "output": "x"}', "out.txt, line 1, index: give the document's position from 0"),
        (b'{"index": 0, "output": "\\ud800"}', "out.txt, row 1: the output holds a NUL or half a surrogate pair; "
         "remove it"),
        (b"One.\nT\0wo.\n", "out.txt, row 2: the output holds a NUL or half a surrogate pair; remove it"),
        (b"index,output\n1st,x\n", "out.txt, row 2, column index: '1st' is not a position from 0"),
        ("index,output\n²,x\n".encode(), "out.txt, row 2, column index: '²' is not a position from 0"),
        (b"id,first,second\nred,x,y\n", "out.txt: which column holds the outputs? Call it `output`; there is first, "
         "second"),
        (b"0\n", ""),
        (b'{"index": 1, "output": "x"}\n{"index": 1, "output": "y"}', "two outputs for document #2: keep one"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_refused_with_the_place(
    experiment: Experiment, data: bytes, sentence: str
) -> None:
    if sentence:
        assert refusal(experiment, data) == sentence
    else:
        assert texts(import_bytes(experiment, "theirs", data))[0] == "0"


def test_broken_quotes_are_refused_with_the_row_and_the_cure(experiment: Experiment) -> None:
    sentence = refusal(experiment, b'index,output\n0,One.\n1,"Two.\n')
    assert sentence.startswith("out.txt, row 3: this is not CSV")
    assert sentence.endswith("double every quote inside it")


def test_a_negative_or_enormous_index_matches_nothing(experiment: Experiment) -> None:
    rows = [{"index": index, "output": "x"} for index in (-1, 10**30, 4)]
    assert import_bytes(experiment, "theirs", jsonl(*rows)).unmatched == ["-1", str(10**30), "4"]


def test_a_name_that_cannot_be_printed_is_cut_and_cleaned(named: Experiment) -> None:
    data = jsonl({"id": "\ud800" + "x" * 500, "output": "x"}, {"id": "a\nb", "output": "y"})
    first, second = import_bytes(named, "theirs", data).unmatched
    assert first.startswith("?x")
    assert len(first) == 60
    assert second == "a b"


def test_two_imports_need_two_names(experiment: Experiment) -> None:
    import_bytes(experiment, "theirs", b"One.\n")
    with pytest.raises(Refused, match="there already is a candidate called 'theirs'"):
        import_bytes(experiment, "theirs", b"Two.\n")


# What other tools write


def harness(doc: int, text: Any, **more: Any) -> dict[str, Any]:
    """A line of the sample log of lm-evaluation-harness."""
    log = {"doc_id": doc, "doc": {"text": "…"}, "target": "t", "arguments": {}, "resps": [[text]]}
    return {**log, "filtered_resps": [text], "rouge": 0.5, **more}


def foo(place: int, text: Any, **more: Any) -> dict[str, Any]:
    """A result of promptfoo."""
    response = {"response": {"output": text}} if text is not None else {"error": "timeout"}
    return {"testIdx": place, "promptIdx": 0, "provider": {"id": "openai:x"}, "vars": {}, **response, **more}


def test_a_sample_log_of_the_harness_goes_by_its_document_numbers(experiment: Experiment) -> None:
    imported = import_bytes(experiment, "theirs", jsonl(harness(2, "Two."), harness(0, "None.")))
    assert texts(imported) == ["None.", "", "Two.", ""]


def test_of_several_filters_the_one_that_changes_nothing_is_taken(experiment: Experiment) -> None:
    rows = [harness(0, "one", filter="strict"), harness(0, "One.", filter="none"), harness(1, "Two.", filter="none")]
    assert texts(import_bytes(experiment, "theirs", jsonl(*rows))) == ["One.", "Two.", "", ""]


def test_a_log_without_filtered_responses_gives_the_responses(experiment: Experiment) -> None:
    row = harness(0, "One.")
    del row["filtered_resps"]
    assert texts(import_bytes(experiment, "theirs", jsonl(row)))[0] == "One."


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("version", [2, 3])
def test_results_of_promptfoo_go_by_the_place_of_their_test(experiment: Experiment, indent: Any, version: int) -> None:
    results: Any = [foo(1, "One."), foo(0, "None."), foo(3, None)]
    content = {"evalId": "e", "results": {"version": 3, "results": results} if version == 3 else results, "config": {}}
    imported = import_bytes(experiment, "theirs", json.dumps(content, indent=indent).encode())
    assert texts(imported) == ["None.", "One.", "", ""]
    assert imported.sentences()[-1] == "2 documents have no output: #3, #4."


def test_results_of_promptfoo_as_lines_go_by_the_id_in_their_variables(named: Experiment) -> None:
    rows = [foo(0, "Blue.", vars={"id": "blue"}), foo(1, "Red.", vars={"id": "red"})]
    assert texts(import_bytes(named, "theirs", jsonl(*rows)))[:2] == ["Red.", "Blue."]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (jsonl(harness(0, "x", filter="a"), harness(0, "y", filter="b")), "out.txt holds the outputs of several "
         "filters (a, b): keep the lines of one"),
        (jsonl(harness(0, "x"), {"doc": 1}), "out.txt, line 2, doc_id: give the document's position from 0"),
        (jsonl(harness(0, [-1.5, False])), "out.txt, line 1: no generated text in filtered_resps or resps; log a task "
         "that generates one text for each document"),
        (jsonl({"results": 5}), "out.txt: no list of results; export it with `promptfoo eval -o results.json`"),
        (jsonl({"results": [foo(0, "x"), foo(0, "y", provider={"id": "openai:y"})]}), "out.txt holds the outputs of "
         "several providers (openai:x, openai:y): export each alone"),
        (jsonl({"results": [foo(0, "x"), foo(0, "y", promptIdx=1)]}), "out.txt holds the outputs of several prompts "
         "(0, 1): export each alone"),
        (jsonl({"results": [foo(0, {"a": 1})]}), "out.txt, result 1: the output is no text"),
        (jsonl({"results": [foo("first", "x")]}), "out.txt, result 1, index: give the document's position from 0"),
    ],
)  # fmt: skip
def test_what_other_tools_write_is_refused_with_the_place(experiment: Experiment, data: bytes, sentence: str) -> None:
    assert refusal(experiment, data) == sentence


@settings(deadline=None, max_examples=200)
@given(
    st.binary(max_size=120)
    | st.sampled_from([b'{"doc_id": ', b'{"results": [', b'{"output": ', b'{"vars": {}, ', b"id,output\n"]).flatmap(
        lambda start: st.binary(max_size=60).map(lambda rest: start + rest)
    )
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["results", "vars", "response", "output", "doc_id", "resps", "id"]), inner
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps({"results": value, "doc_id": value} if value else {"vars": value}).encode())
)
def test_any_bytes_give_outputs_or_words(data: bytes) -> None:
    try:
        for one in outputs(data, "out.txt"):
            one["output"].encode()
    except BadOutputs as bad:
        assert str(bad).startswith("out.txt")
