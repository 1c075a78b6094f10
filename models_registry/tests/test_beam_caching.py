"""Beam search with one cross-attention cache per document: the stock search's tokens, or the stock search itself."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers

from models_registry import beam_caching
from models_registry.beam_caching import fold_beams

LENGTHS = (20, 9, 4, 13, 20)


@pytest.fixture
def loaded(tiny):
    def load(name):
        return transformers.AutoModelForSeq2SeqLM.from_pretrained(tiny(name)).eval()

    return load


def searched(model, lengths=LENGTHS, **asked):
    """The tokens that a batch of documents of these lengths is summarized to."""
    ids = torch.arange(7, 7 + 20 * len(lengths)).reshape(len(lengths), 20) % 500
    mask = torch.tensor([[1] * length + [0] * (20 - length) for length in lengths])
    asked = {"num_beams": 4, "max_new_tokens": 12, "do_sample": False, **asked}
    with torch.inference_mode():
        return model.generate(input_ids=ids * mask, attention_mask=mask, **asked).tolist()


@pytest.mark.parametrize("name", ["bart", "t5", "pegasus", "led"])
@pytest.mark.parametrize(
    "asked",
    [{}, {"num_beams": 2, "no_repeat_ngram_size": 2, "min_new_tokens": 6}, {"early_stopping": True, "num_beams": 5}],
)
def test_the_tokens_are_those_of_the_stock_search(loaded, name, asked):
    model = loaded(name)
    stock = searched(model, **asked)
    assert fold_beams(model) == ""
    assert searched(model, **asked) == stock
    assert len({tuple(row) for row in stock}) > 1, "a model that writes the same for every document proves nothing"


def test_a_single_document_needs_no_mask(loaded):
    model = loaded("bart")
    stock = searched(model, lengths=(20,))
    fold_beams(model)
    assert searched(model, lengths=(20,)) == stock


def test_greedy_search_goes_on_as_before(loaded):
    model = loaded("t5")
    stock = searched(model, num_beams=1)
    fold_beams(model)
    assert searched(model, num_beams=1) == stock


def test_the_cache_of_the_document_is_kept_once_and_never_reordered(loaded):
    model = loaded("bart")
    fold_beams(model)
    seen, stock = [], model._reorder_cache

    def look(cache, order):
        before = cache.cross_attention_cache.layers[0].keys
        after = stock(cache, order)
        seen.append((len(before), len(after.self_attention_cache.layers[0].keys)))
        assert after.cross_attention_cache.layers[0].keys is before
        return after

    model._reorder_cache = look
    searched(model)
    assert set(seen) == {(5, 20)}


def nothing_is_reordered(cache, order):
    return cache


def all_is_reordered_backwards(cache, order):
    cache.self_attention_cache.reorder_cache(order.flip(0))
    return cache


@pytest.mark.parametrize("name", ["bart", "t5", "pegasus", "led"])
@pytest.mark.parametrize("wrong", [nothing_is_reordered, all_is_reordered_backwards])
def test_the_guard_keeps_the_stock_search_when_the_tokens_differ(loaded, monkeypatch, name, wrong):
    model = loaded(name)
    stock = searched(model)
    monkeypatch.setattr(beam_caching, "_reorder_what_was_written", wrong)
    assert fold_beams(model) == f"a tiny {type(model).__name__} wrote other tokens"
    assert searched(model) == stock


def test_the_guard_keeps_the_stock_search_when_the_tiny_model_fails(loaded, monkeypatch):
    def break_off(stock):
        raise TypeError("attend() got an unexpected argument")

    model = loaded("t5")
    monkeypatch.setattr(beam_caching, "_over_beams", break_off)
    assert "could not be tried: TypeError" in fold_beams(model)
    assert "forward" not in vars(model.decoder.block[0].layer[1].EncDecAttention)


@pytest.mark.parametrize("known", [((5, 0), (5, 3)), ((99, 0), (100, 0))])
def test_an_unknown_release_keeps_the_stock_search(loaded, monkeypatch, known):
    model = loaded("bart")
    monkeypatch.setattr(beam_caching, "KNOWN_VERSIONS", known)
    assert fold_beams(model) == f"transformers {transformers.__version__} has not been tried"
    assert "_reorder_cache" not in vars(model)


def test_a_model_of_unknown_build_keeps_the_stock_search(tiny):
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny("llama"))
    assert "no cross-attention that is known" in fold_beams(model)


def test_trying_leaves_the_random_state_and_the_configuration_alone(loaded):
    model = loaded("led")
    state, config = torch.random.get_rng_state(), copy.deepcopy(model.config.to_dict())
    fold_beams(model)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.config.to_dict() == config
