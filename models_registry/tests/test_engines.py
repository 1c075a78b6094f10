"""CTranslate2 as an engine: taken where it writes the same, refused in words where it cannot, and always on record."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("ctranslate2", reason="the extra fast-cpu is not installed")

from models_registry import engines
from models_registry.providers import Access, ProviderError, Request, serving
from models_registry.testing import text, tiny_bart, tiny_t5
from models_registry.translating import Translation, cache_folder

hf = serving("hf")
LENGTHS = (3, 60, 17, 31, 8, 44, 90, 25, 400)


@pytest.fixture
def opened(tmp_path):
    """Open a folder as a worker would: prepared, with this test's own place for conversions."""

    def start(folder, generation=None, **spec):
        generation = {"max_new_tokens": 12, **(generation or {})}
        spec = {"uri": "file://root/x", "path": str(folder), "generation": generation, **spec}
        return hf.open(hf.prepare(spec, {"LUMIGATOR_HOME": str(tmp_path)}), Access())

    return start


def written(session, lengths=LENGTHS):
    requests = [Request(key, text(length, key)) for key, length in enumerate(lengths)]
    outputs = {output.key: output for batch in session.generate(requests) for output in batch}
    return [
        (each.text, each.finish_reason, each.input_tokens, each.input_tokens_read, each.output_tokens)
        for _, each in sorted(outputs.items())
    ]


EXACT = [
    {},
    {"max_new_tokens": 1},
    {"min_length": 5},
    {"min_new_tokens": 4, "no_repeat_ngram_size": 2},
    {"num_beams": 4, "early_stopping": True},
    {"num_beams": 3, "early_stopping": True, "length_penalty": 2.0},
    {"num_beams": 3, "early_stopping": True, "length_penalty": 0.5},
]


@pytest.mark.parametrize("name", ["bart", "t5", "pegasus"])
@pytest.mark.parametrize("generation", EXACT, ids=str)
def test_texts_lengths_and_counts_are_those_of_transformers(tiny, opened, name, generation):
    ours, reference = opened(tiny(name), generation), opened(tiny(name), generation, engine="transformers")
    assert (ours.describe()["engine"], reference.describe()["engine"]) == ("ctranslate2", "transformers")
    found = written(ours)
    assert found == written(reference)
    assert len({row[0] for row in found}) > 1, "a model that writes the same for every document proves nothing"


@pytest.mark.parametrize("forced", [{"forced_bos_token_id": 1}, {"forced_eos_token_id": 2}], ids=str)
@pytest.mark.parametrize("longest", [1, 2, 7])
def test_forced_first_and_last_tokens_are_written_too(tmp_path, opened, forced, longest):
    folder = tiny_bart(tmp_path / "model", **forced)
    generation = {"max_new_tokens": longest, "min_length": 1}
    ours = opened(folder, generation)
    assert ours.describe()["engine"] == "ctranslate2"
    assert written(ours) == written(opened(folder, generation, engine="transformers"))


def test_an_end_token_ends_the_text_as_with_transformers(tmp_path, opened):
    """A model that likes its end token: about a third of the documents stop early."""
    import torch
    from transformers import AutoModelForSeq2SeqLM

    folder = tiny_t5(tmp_path / "model", tie_word_embeddings=False)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight[2] *= 2.2
    model.save_pretrained(folder)
    for generation in ({}, {"num_beams": 4, "early_stopping": True}):
        found = written(opened(folder, generation))
        assert found == written(opened(folder, generation, engine="transformers"))
        assert {row[1] for row in found} == {"stop", "length"}


@pytest.mark.parametrize(
    ("generation", "says"),
    [
        ({"temperature": 1.0}, "sampling is left to transformers"),
        ({"repetition_penalty": 1.3}, "repetition_penalty"),
        ({"encoder_no_repeat_ngram_size": 2}, "encoder_no_repeat_ngram_size"),
        ({"num_beams": 4}, "early_stopping=true only"),
        ({"num_beams": 4, "early_stopping": True, "no_repeat_ngram_size": 2}, "scores beams otherwise"),
        ({"num_beams": 4, "early_stopping": True, "min_length": 5}, "scores beams otherwise"),
    ],
)
def test_what_it_decodes_otherwise_is_left_to_transformers_or_refused(tiny, opened, generation, says):
    facts = opened(tiny("bart"), generation).describe()
    assert facts["engine"] == "transformers"
    assert says in facts["engine_note"]
    with pytest.raises(ProviderError, match=says) as caught:
        opened(tiny("bart"), generation, engine="ctranslate2")
    assert (caught.value.code, caught.value.failure) == ("bad_parameter", "stop")


def test_an_architecture_it_does_not_know_stays_with_transformers(tiny, opened):
    for name in ("led", "llama"):
        facts = opened(tiny(name)).describe()
        assert facts["engine"] == "transformers"
        assert f"not {name}" in facts["engine_note"]


def test_other_tokens_on_a_probe_mean_transformers_and_say_so(tiny, opened, monkeypatch):
    stock = Translation.write

    def off_by_one(self, rows, max_new_tokens=None):
        first, *others = stock(self, rows, max_new_tokens)
        return [[*first[:-1], first[-1] - 1], *others]

    monkeypatch.setattr(Translation, "write", off_by_one)
    facts = opened(tiny("bart")).describe()
    assert facts["engine"] == "transformers"
    assert facts["engine_note"] == "ctranslate2 wrote other tokens than transformers on 1 of 3 probes"
    asked = opened(tiny("bart"), engine="ctranslate2").describe()
    assert (asked["engine"], asked["engine_note"]) == ("ctranslate2", facts["engine_note"])


def test_int8_is_a_choice_of_its_own_and_on_record(tiny, opened):
    for spec in ({"dtype": "int8"}, {"options": {"dtype": "int8"}, "dtype": "auto"}):
        session = opened(tiny("bart"), **spec)
        facts = session.describe()
        assert (facts["engine"], facts["dtype"], facts["engine_note"]) == ("ctranslate2", "int8", "int8 asked for")
        assert "ctranslate2" in facts["versions"]
        assert all(row[0] for row in written(session))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"engine": "transformers", "dtype": "int8"}, "int8 is offered by the engine ctranslate2"),
        ({"engine": "ctranslate2", "dtype": "float16"}, "without float16"),
        ({"engine": "onnx"}, "engine must be one of"),
        ({"options": {"dtype": "int4"}}, "dtype must be one of"),
    ],
)
def test_engines_and_precisions_that_do_not_exist_are_refused(spec, says):
    assert says in " ".join(hf.problems({"uri": "file://r/x", **spec}))


def test_a_precision_that_this_processor_lacks_is_refused_before_anything_is_converted(tiny, opened, tmp_path):
    import ctranslate2

    if "bfloat16" in ctranslate2.get_supported_compute_types("cpu"):
        pytest.skip("this processor has bfloat16")
    with pytest.raises(ProviderError, match="has no bfloat16, but float32"):
        opened(tiny("bart"), engine="ctranslate2", dtype="bfloat16")
    assert not (tmp_path / "ctranslate2").exists()


def test_a_model_is_converted_once(tiny, opened, tmp_path):
    opened(tiny("bart"))
    [folder] = (tmp_path / "ctranslate2").iterdir()
    stamp = (folder / "model.bin").stat()
    opened(tiny("bart"))
    again = (folder / "model.bin").stat()
    assert (again.st_ino, again.st_mtime_ns) == (stamp.st_ino, stamp.st_mtime_ns)
    opened(tiny("bart"), dtype="int8")
    opened(tiny("t5"))
    assert len(list((tmp_path / "ctranslate2").iterdir())) == 3


def test_an_interrupted_conversion_leaves_nothing_and_is_said(tiny, opened, tmp_path, monkeypatch):
    from ctranslate2.specs.model_spec import ModelSpec

    def full(self, folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ModelSpec, "save", full)
    facts = opened(tiny("bart")).describe()
    assert facts["engine"] == "transformers"
    assert "No space left on device" in facts["engine_note"]
    assert list((tmp_path / "ctranslate2").iterdir()) == []


def test_a_cache_that_cannot_be_made_means_transformers(tiny, tmp_path):
    (tmp_path / "ctranslate2").write_text("a file where a folder should be")
    spec = {"uri": "file://root/x", "path": str(tiny("bart")), "generation": {"max_new_tokens": 8}}
    facts = hf.open(hf.prepare(spec, {"LUMIGATOR_HOME": str(tmp_path)}), Access()).describe()
    assert facts["engine"] == "transformers"
    assert "ctranslate2 cannot take the model" in facts["engine_note"]


def test_two_that_convert_at_once_end_with_one_conversion(tiny, opened, tmp_path, monkeypatch):
    """The other process puts its folder in place while ours is still being made."""
    stock = os.rename

    def second(source, target):
        stock(source, target)
        os.mkdir(source)
        stock(source, target)

    monkeypatch.setattr("models_registry.translating.os.rename", second)
    assert opened(tiny("bart")).describe()["engine"] == "ctranslate2"
    assert len(list((tmp_path / "ctranslate2").iterdir())) == 1


def test_conversions_are_kept_beside_the_rest():
    assert str(cache_folder({"LUMIGATOR_HOME": "/a", "HF_HOME": "/b"})) == "/a/ctranslate2"
    assert str(cache_folder({"HF_HOME": "/b"})) == "/b/ctranslate2"
    assert str(cache_folder({"HOME": "/c"})) == "/c/.cache/lumigator/ctranslate2"


def test_the_loaded_weights_are_let_go(tiny, opened):
    assert opened(tiny("bart"))._model is None
    assert opened(tiny("bart"), engine="transformers")._model is not None


def test_the_probes_are_long_enough_to_tell_models_apart(tiny, opened):
    session = opened(tiny("bart"))
    lengths = [len(session._encoding.encode(probe)) for probe in engines.PROBES]
    assert lengths == sorted(set(lengths))
