"""Extractive baselines: what they pick, in which order, and what the oracle may read."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models_registry.extracting import oracle, overlap, random_pick, rank, textrank
from models_registry.providers import Access, ProviderError, Request, serving

TEXT = (
    "The river rose in the night. The old bridge over the river was closed. Bakers sold bread. "
    "Engineers said the bridge over the river needs repairs. A dog slept."
)


def run(uri, source=TEXT, references=(), seed=0):
    provider = serving(uri.partition("://")[0])
    session = provider.open({"uri": uri}, Access())
    [[output]] = session.generate([Request(7, source, references=tuple(references), seed=seed)])
    return output


def test_lead_takes_the_first_sentences():
    assert run("baseline://lead-2").text == "The river rose in the night. The old bridge over the river was closed."
    assert run("baseline://lead-9").text == TEXT


def test_textrank_takes_the_central_sentences_in_document_order():
    text = run("baseline://textrank-2").text
    assert text == ("The old bridge over the river was closed. Engineers said the bridge over the river needs repairs.")


def test_lexrank_leaves_out_what_shares_no_word():
    assert "dog" not in run("baseline://lexrank-3").text


def test_random_depends_on_the_seed_alone():
    texts = {run("baseline://random-2", seed=seed).text for seed in range(20)}
    assert run("baseline://random-2", seed=3).text == run("baseline://random-2", seed=3).text
    assert len(texts) > 3


def test_overlap_is_the_formula_of_the_paper():
    similarity = overlap(["the cat sat", "the cat ran off", "no"])
    assert similarity[0, 1] == pytest.approx(2 / (math.log(3) + math.log(4)))
    assert similarity[0, 2] == similarity[2, 2] == 0


def test_rank_solves_its_equation():
    weights = np.random.default_rng(1).random((6, 6))
    weights = weights + weights.T
    np.fill_diagonal(weights, 0)
    share = weights / weights.sum(axis=1, keepdims=True)
    exact = np.linalg.solve(np.eye(6) - 0.85 * share.T, np.full(6, 0.15))
    assert rank(weights) == pytest.approx(exact, abs=1e-6)


def test_equal_sentences_are_taken_from_the_front():
    assert textrank(["same words here"] * 5, 2) == [0, 1]


def test_the_oracle_picks_what_the_reference_says():
    output = run("oracle://greedy", references=["A dog slept. Bakers sold bread."])
    assert output.text == "Bakers sold bread. A dog slept."
    assert run("oracle://greedy-1", references=["Bakers sold bread, a dog"]).text == "Bakers sold bread."


def test_the_oracle_without_a_reference_says_so():
    output = run("oracle://greedy", references=[" "])
    assert (output.status, output.error_code) == ("error", "no_reference")
    assert serving("oracle").uses_references


def test_an_empty_document_gives_an_empty_output():
    assert run("baseline://lead-3", source=" ").error_code == "empty_output"


@pytest.mark.parametrize(
    "uri", ["baseline://lead-0", "baseline://lede-3", "baseline://", "oracle://best", "baseline://lead-3x"]
)
def test_an_unknown_name_is_refused_with_the_known_ones(uri):
    provider = serving(uri.partition("://")[0])
    assert "://" in provider.problems({"uri": uri})[0]
    with pytest.raises(ProviderError) as caught:
        provider.open({"uri": uri}, Access())
    assert caught.value.failure == "stop"


def test_generation_parameters_are_refused_where_nothing_would_apply_them():
    assert serving("baseline").problems({"uri": "baseline://lead-3", "generation": {"max_new_tokens": 5}})


def test_tokens_that_nobody_counted_are_absent():
    assert run("baseline://lead-1").output_tokens is None


def test_imported_outputs_are_never_generated():
    with pytest.raises(ProviderError) as caught:
        serving("import").open({"uri": "import://"}, Access())
    assert (caught.value.code, caught.value.failure) == ("imported", "stop")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(alphabet="abc ", max_size=12), max_size=12), st.integers(1, 5), st.integers(0, 9))
def test_positions_rise_and_are_as_many_as_asked(pieces, count, seed):
    for chosen in (textrank(pieces, count), random_pick(pieces, count, seed)):
        assert chosen == sorted(set(chosen))
        assert len(chosen) == min(count, len(pieces))
    assert len(oracle(pieces, ["a b c"], count)) <= count
