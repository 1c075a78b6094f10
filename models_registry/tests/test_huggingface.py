"""Local models: every architecture writes, batches change nothing, cuts are on record, and bad folders are refused."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from models_registry.providers import Access, ProviderError, Request, serving
from models_registry.testing import text, tiny_bart, tiny_t5

SEQ2SEQ = ["bart", "t5", "pegasus", "led"]
CAUSAL = ["llama", "gpt2"]
hf = serving("hf")


def open_session(folder, **spec):
    spec = {"uri": "file://root/x", "path": str(folder), **spec}
    spec.setdefault("generation", {"max_new_tokens": 10})
    return hf.open(spec, Access())


def run(session, requests):
    return {output.key: output for batch in session.generate(requests) for output in batch}


def requests_of(lengths, prompt="summarize the text : {} . summary :"):
    sources = [text(length, seed) for seed, length in enumerate(lengths)]
    return [Request(key, source, prompt=prompt.format(source)) for key, source in enumerate(sources)]


@pytest.mark.parametrize("name", SEQ2SEQ + CAUSAL)
def test_a_batch_gives_the_text_of_each_document_alone(tiny, name):
    session = open_session(tiny(name))
    requests = requests_of([3, 60, 17, 31, 8, 44])
    together = run(session, requests)
    alone = {key: output for request in requests for key, output in run(session, [request]).items()}
    assert sorted(together) == list(range(6))
    assert {key: output.text for key, output in together.items()} == {key: output.text for key, output in alone.items()}
    assert len({output.text for output in alone.values()}) > 1, "a model that ignores its input proves nothing"


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_a_batch_with_beams_gives_the_text_of_each_document_alone(tiny, name):
    session = open_session(tiny(name), generation={"max_new_tokens": 8, "num_beams": 3, "length_penalty": 2.0})
    requests = requests_of([5, 20, 11])
    together = run(session, requests)
    assert all(run(session, [request])[request.key].text == together[request.key].text for request in requests)


def test_batches_are_announced_longest_first_before_they_run(tiny):
    session = open_session(tiny("bart"), options={"token_budget": 64})
    seen = []
    session.starting = seen.append
    batches = [[output.key for output in batch] for batch in session.generate(requests_of([4, 50, 9, 30]))]
    assert seen == batches == [[1], [3, 2], [0]]


@pytest.mark.parametrize("name", SEQ2SEQ + CAUSAL)
def test_a_long_document_is_cut_and_the_cut_is_on_record(tiny, name):
    session = open_session(tiny(name))
    window = session.describe()["window"]
    output = run(session, requests_of([400]))[0]
    limit = window if name in SEQ2SEQ else window - 10
    assert output.status == "ok"
    assert output.input_tokens > 400 > limit >= output.input_tokens_read > limit - 5


def test_seq2seq_truncation_is_the_tokenizers_own(tiny):
    from transformers import AutoTokenizer

    session = open_session(tiny("t5"))
    request = requests_of([300])[0]
    expected = AutoTokenizer.from_pretrained(tiny("t5"))(
        "summarize : " + request.source, truncation=True, max_length=128
    )["input_ids"]
    assert list(session._prepare(request).ids) == expected


@pytest.mark.parametrize("name", CAUSAL)
def test_the_instruction_survives_the_cut(tiny, name):
    session = open_session(tiny(name))
    [request] = requests_of([400], prompt="summarize the document : {} . last summary of the council :")
    read = session._tokenizer.decode(session._prepare(request).ids)
    assert "summarize the document : " + request.source[:60] in read
    assert "last summary of the council :" in read


def test_a_prompt_that_leaves_no_room_is_an_error_of_its_example(tiny):
    session = open_session(tiny("llama"))
    output = run(session, [Request(1, text(5), prompt=text(400) + " " + text(5)), Request(2, text(4))])
    assert (output[1].status, output[1].error_code) == ("error", "input_too_long")
    assert output[2].status == "ok"


def test_ten_megabytes_are_refused_before_they_are_tokenized(tiny):
    output = run(open_session(tiny("bart")), [Request(1, "x " * 5_000_000)])[1]
    assert output.error_code == "input_too_long"


def test_the_chat_template_and_the_system_message_are_used(tiny):
    session = open_session(tiny("llama"), system="the teacher")
    read = session._tokenizer.decode(session._prepare(Request(1, "the river", prompt="summarize : the river")).ids)
    assert read.startswith("<|system|> the teacher <|end|> <|user|> summarize : the river <|end|> <|assistant|>")


def test_without_a_chat_template_the_model_continues_the_prompt(tiny):
    session = open_session(tiny("gpt2"))
    ids = session._prepare(Request(1, "the river", prompt="summarize : the river . summary :")).ids
    assert session._tokenizer.decode(ids) == "summarize : the river . summary :"
    assert not session.describe()["chat_template"]


def test_the_prompt_is_not_part_of_the_output(tiny):
    session = open_session(tiny("gpt2"), generation={"max_new_tokens": 1})
    output = run(session, [Request(1, text(30), prompt=text(30))])[1]
    assert output.output_tokens == 1
    assert len(output.text) < 20


def test_seq2seq_reads_the_bare_document_behind_its_prefix(tiny):
    def read(**spec):
        session = open_session(tiny("t5"), **spec)
        request = Request(1, "the river", prompt="please : the river")
        return session._tokenizer.decode(session._prepare(request).ids, skip_special_tokens=True)

    assert read() == "summarize : the river"
    assert read(generation={"prefix": "summary : "}) == "summary : the river"
    assert read(options={"reads_prompt": True}) == "please : the river"


def test_a_prefix_of_the_whole_configuration_counts_where_the_task_has_none(tmp_path):
    folder = tiny_bart(tmp_path)
    change(folder, "config.json", prefix="summary : ")
    session = open_session(folder)
    read = session._tokenizer.decode(session._prepare(Request(1, "the river")).ids, skip_special_tokens=True)
    assert read == "summary : the river"
    assert session.describe()["prefix"] == "summary : "


def test_led_gives_its_first_token_global_attention(tiny):
    session = open_session(tiny("led"))
    seen = {}
    stock = session._model.generate

    def spy(**inputs):
        seen.update(inputs)
        return stock(**inputs)

    session._model.generate = spy
    run(session, requests_of([20, 9]))
    assert seen["global_attention_mask"].sum(dim=1).tolist() == [1, 1]
    assert seen["global_attention_mask"][:, 0].tolist() == [1, 1]


def test_a_text_that_reaches_its_limit_says_so(tiny):
    cut = run(open_session(tiny("bart")), requests_of([9]))[0]
    assert (cut.finish_reason, cut.output_tokens) == ("length", 10)


def test_an_end_token_is_a_stop_but_a_forced_one_is_the_limit(tiny):
    session = open_session(tiny("bart"))
    assert session._finish([9, 8, 2]) == "stop"
    session._generation_config.forced_eos_token_id = 2
    assert session._finish([9] * 9 + [2]) == "length"
    assert session._finish([9] * 8 + [2]) == "stop"


def test_an_output_of_nothing_is_empty_and_no_success(tiny):
    session = open_session(tiny("bart"))
    session._generate = lambda rows: [[2] for _ in rows]
    output = run(session, requests_of([5]))[0]
    assert (output.status, output.error_code, output.output_tokens) == ("empty", "empty_output", 1)


@pytest.mark.parametrize(
    ("written", "opened", "reasoning", "answer"),
    [
        ("<think>the river</think>the bridge", False, "the river", "the bridge"),
        ("the river</think>the bridge", True, "the river", "the bridge"),
        ("<think>the river", False, "the river", ""),
        ("the river", True, "the river", ""),
        ("the bridge", False, "", "the bridge"),
    ],
)
def test_a_thought_is_no_part_of_the_answer(tiny, written, opened, reasoning, answer):
    session = open_session(tiny("llama"))
    ids = session._tokenizer(written)["input_ids"]
    assert session._read(ids, opened=opened) == (reasoning, answer)


def test_sampling_depends_on_the_seed_and_not_on_the_neighbours(tiny):
    session = open_session(tiny("llama"), generation={"max_new_tokens": 10, "temperature": 1.5, "top_p": 0.95})
    requests = [Request(key, text(20), prompt=text(20), seed=seed) for key, seed in enumerate([5, 6, 5, 7])]
    together = run(session, requests)
    assert together[0].text == together[2].text != together[1].text
    assert run(session, [requests[3]])[3].text == together[3].text
    assert session.describe()["generation"]["do_sample"] is True


def test_generation_parameters_are_really_applied(tiny):
    def text_with(**generation):
        session = open_session(tiny("bart"), generation={"max_new_tokens": 12, **generation})
        return run(session, requests_of([30]))[0].text

    plain = text_with()
    assert text_with(no_repeat_ngram_size=1) != plain
    assert text_with(repetition_penalty=5.0) != plain
    assert text_with(temperature=0) == plain


@pytest.mark.parametrize(
    ("generation", "says"),
    [
        ({"max_tokens": 5}, "did you mean max_"),
        ({"wibble": 5}, "unknown generation parameter 'wibble'"),
        ({"num_beams": 0}, "num_beams must be a whole number from 1"),
        ({"top_p": 1.5}, "top_p must be"),
        ({"do_sample": False, "temperature": 0.7}, "no effect"),
        ({"max_length": 9}, "max_length has no place here"),
        ({"prefix": "x"}, "prefix has no place here"),
    ],
)
def test_a_parameter_that_would_be_lost_is_refused(tiny, generation, says):
    spec = {"uri": "file://r/x", "architecture": "causal", "generation": generation}
    assert re.search(says, " ".join(hf.problems(spec)))
    with pytest.raises(ProviderError) as caught:
        open_session(tiny("llama"), generation=generation)
    assert (caught.value.code, caught.value.failure) == ("bad_parameter", "stop")


def test_the_models_own_settings_are_applied_under_the_entrys(tmp_path):
    published = {"prefix": "summarize : ", "num_beams": 2, "max_length": 9, "min_length": 4, "early_stopping": True}
    folder = tiny_t5(tmp_path, task_specific_params={"summarization": published})
    settled = open_session(folder, generation={}).describe()["generation"]
    assert settled == {
        "num_beams": 2, "early_stopping": True, "min_length": 4, "max_new_tokens": 8, "do_sample": False
    }  # fmt: skip
    with pytest.raises(ProviderError, match="at least 3"):
        open_session(folder, generation={"max_new_tokens": 2})


def test_more_new_tokens_than_positions_are_refused(tiny):
    for name in ("bart", "llama"):
        with pytest.raises(ProviderError, match="leaves no room"):
            open_session(tiny(name), generation={"max_new_tokens": 256})


def test_a_window_never_passes_the_end_of_a_table_of_positions(tiny):
    assert open_session(tiny("bart"), window=4000).describe()["window"] == 128
    assert open_session(tiny("bart"), window=64).describe()["window"] == 64
    assert open_session(tiny("t5"), window=4000).describe()["window"] == 4000


def test_a_row_that_breaks_the_model_costs_itself_alone(tiny):
    session = open_session(tiny("bart"))
    stock = session._generate

    def breaks(rows):
        if any(row.key == 2 for row in rows):
            raise IndexError("index out of range in self")
        return stock(rows)

    session._generate = breaks
    outputs = run(session, requests_of([5, 9, 14, 20]))
    assert [outputs[key].status for key in range(4)] == ["ok", "ok", "error", "ok"]
    assert outputs[2].error_code == "model_error"
    assert "IndexError" in outputs[2].error


def test_running_out_of_memory_halves_the_batch_and_loses_nothing(tiny):
    import torch

    session = open_session(tiny("bart"))
    stock, expected = session._generate, run(session, requests_of([10] * 8))

    def small(rows):
        if len(rows) > 2:
            raise torch.OutOfMemoryError
        return stock(rows)

    session._generate = small
    assert {key: output.text for key, output in run(session, requests_of([10] * 8)).items()} == {
        key: output.text for key, output in expected.items()
    }
    assert session.describe()["token_budget"] < 4096


def test_one_failure_of_the_allocator_costs_no_row_and_changes_no_text(tiny):
    """The device says once, in the middle of its work, that there is no memory: the halves go through."""
    import torch

    session = open_session(tiny("pegasus"), engine="transformers")
    requests = requests_of([12, 50, 31, 7, 44])
    expected = {key: output.text for key, output in run(session, requests).items()}
    stock, widths = session._model.generate, []

    def once(**inputs):
        widths.append(len(inputs["input_ids"]))
        if len(widths) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return stock(**inputs)

    session._model.generate = once
    assert {key: output.text for key, output in run(session, requests).items()} == expected
    assert widths == [5, 2, 3]


def test_memory_for_one_document_at_a_time_is_enough(tiny):
    import torch

    session = open_session(tiny("t5"))
    requests = requests_of([12, 50, 31, 7, 44])
    expected = {key: output.text for key, output in run(session, requests).items()}
    stock = session._model.generate

    def narrow(**inputs):
        if len(inputs["input_ids"]) > 1:
            raise torch.OutOfMemoryError
        return stock(**inputs)

    session._model.generate = narrow
    assert {key: output.text for key, output in run(session, requests).items()} == expected


@pytest.mark.parametrize("name", SEQ2SEQ + CAUSAL)
def test_what_a_request_counts_is_what_it_needs(tiny, name):
    session = open_session(tiny(name))
    [request] = requests_of([300])
    output = run(session, [request])[0]
    assert session.count(request) == output.input_tokens
    assert session.limit >= output.input_tokens_read


def test_beams_are_folded_and_the_record_says_so(tiny):
    generation = {"max_new_tokens": 8, "num_beams": 3}
    for name in SEQ2SEQ:
        facts = open_session(tiny(name), generation=generation).describe()
        assert facts["beam_search"] == "one cross-attention cache per document"
    assert open_session(tiny("bart")).describe()["beam_search"] == ""


def test_the_record_names_engine_and_precision(tiny):
    facts = open_session(tiny("t5"), dtype="bfloat16").describe()
    assert (facts["engine"], facts["dtype"], facts["engine_note"]) == ("transformers", "bfloat16", "bfloat16 asked for")
    facts = open_session(tiny("t5"), options={"engine": "transformers"}).describe()
    assert (facts["engine"], facts["dtype"], facts["engine_note"]) == ("transformers", "float32", "asked for")


# Folders that are refused


@pytest.fixture
def copy(tiny, tmp_path):
    return shutil.copytree(tiny("llama"), tmp_path / "copy")


def change(folder, name, **settings):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def refusal(folder):
    spec = {"uri": "file://root/copy", "path": str(folder), "generation": {}}
    found = " ".join(hf.problems(spec))
    for attempt in (lambda: hf.prepare(spec, {}), lambda: hf.open(spec, Access())):
        with pytest.raises(ProviderError) as caught:
            attempt()
        assert caught.value.failure == "stop"
    return found


def test_a_sound_folder_has_no_problem(copy):
    assert hf.problems({"uri": "file://root/copy", "path": str(copy)}) == []


def test_pickled_weights_are_refused(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    assert "only pickled weights (pytorch_model.bin)" in refusal(copy)


def test_a_folder_without_weights_or_without_configuration_is_refused(copy):
    (copy / "model.safetensors").unlink()
    assert "no safetensors weights" in refusal(copy)
    (copy / "config.json").unlink()
    assert "config.json is missing" in refusal(copy)
    assert "does not exist" in refusal(copy / "elsewhere")


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("config.json", {"auto_map": {"AutoModel": "evil.Model"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}),
        ("config.json", {"_attn_implementation_internal": "someone/kernel"}),
        ("config.json", {"attn_implementation": "someone/kernel"}),
        ("config.json", {"text_config": {"deep": [{"trust_remote_code": True}]}}),
    ],
)
def test_settings_that_ask_for_code_are_refused(copy, name, asked):
    change(copy, name, **asked)
    assert name in refusal(copy)


def test_a_model_that_writes_no_text_is_refused(copy):
    change(copy, "config.json", architectures=["BertForSequenceClassification"])
    assert "writes no text" in refusal(copy)


def test_half_a_weights_file_is_refused(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert "not a whole safetensors file" in refusal(copy)


def test_weights_of_another_model_are_refused_and_never_filled_at_random(tmp_path):
    folder = tiny_bart(tmp_path)
    change(folder, "config.json", decoder_layers=3)
    with pytest.raises(ProviderError, match="the weights lack") as caught:
        open_session(folder)
    assert caught.value.code == "no_weights"


def test_a_local_folder_is_pinned_by_its_content(copy):
    spec = hf.prepare({"uri": "file://root/copy", "path": str(copy)}, {})
    assert len(spec["revision"]) == 64
    assert hf.prepare(spec, {})["revision"] == spec["revision"]
    change(copy, "generation_config.json", temperature=0.1)
    with pytest.raises(ProviderError) as caught:
        hf.prepare(spec, {})
    assert caught.value.code == "weights_changed"
