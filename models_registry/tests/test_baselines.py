"""Extractive baselines: what they pick, in which order, that they are their papers' formulas, and what the oracle may
read."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models_registry.extracting import (
    COLUMNS,
    cosine,
    first,
    lead,
    lexrank,
    longest,
    lsa,
    oracle,
    overlap,
    random_pick,
    rank,
    salience,
    textrank,
    within,
)
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


def test_lexrank_takes_the_sentence_that_shares_most():
    assert run("baseline://lexrank-1").text == "The old bridge over the river was closed."


def test_lsa_takes_the_strongest_topic():
    text = run("baseline://lsa-2", "Stop. Cats drink cold milk. Rain. Cats drink cold milk daily. Wait.").text
    assert text == "Cats drink cold milk. Cats drink cold milk daily."


def test_longest_takes_the_sentences_of_most_words():
    assert run("baseline://longest-1").text == "Engineers said the bridge over the river needs repairs."


def test_copy_is_the_document_itself():
    assert run("baseline://copy", f" {TEXT}\n\nAda: bye ").text == f"{TEXT}\n\nAda: bye"
    assert run("baseline://copy", " \n").error_code == "empty_output"


def test_a_length_in_words_ends_before_the_sentence_that_would_be_too_many():
    assert run("baseline://lead-14w").text == run("baseline://lead-2").text
    assert run("baseline://lead-13w").text == run("baseline://lead-1").text
    assert run("baseline://textrank-17w").text == run("baseline://textrank-2").text


def test_a_first_sentence_longer_than_all_that_was_asked_is_taken_whole():
    assert run("baseline://lead-2w").text == "The river rose in the night."


def test_a_method_that_compares_nothing_reads_any_number_of_sentences():
    long = "A word. " * 4_001
    assert run("baseline://lead-2", long).text == "A word. A word."
    assert run("baseline://lsa-2", long).error_code == "input_too_long"


def test_a_turn_of_a_dialogue_is_taken_with_its_speaker():
    assert (
        run("baseline://lead-1", "#Person1#: Hi. Any news?\n#Person2#: None. Bye.").text == "#Person1#: Hi. Any news?"
    )


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


def test_cosine_is_computed_by_hand():
    # n = 3: "a" is in one sentence (idf log 3), "b" and "c" in two (log 1.5)
    rare, common = math.log(3), math.log(3 / 2)
    similarity = cosine(["a b", "b c", "c d d"])
    assert similarity[0, 1] == pytest.approx(common**2 / (math.hypot(rare, common) * math.hypot(common, common)))
    assert similarity[1, 2] == pytest.approx(common**2 / (math.hypot(common, common) * math.hypot(common, 2 * rare)))
    assert similarity[0, 2] == 0
    assert np.diagonal(similarity) == pytest.approx(1)


def test_lexrank_is_the_stationary_distribution_of_its_walk():
    pieces = ["a b c", "b c d", "c d e e", "f a", "b f g"]
    weights = cosine(pieces)
    walk = 0.15 / 5 + 0.85 * weights / weights.sum(axis=1, keepdims=True)
    values, vectors = np.linalg.eig(walk.T)
    stationary = np.real(vectors[:, np.argmax(np.real(values))])
    assert rank(weights) / 5 == pytest.approx(stationary / stationary.sum(), abs=1e-7)
    assert lexrank(pieces) == sorted(range(5), key=lambda each: -stationary[each] / stationary.sum())


def test_textrank_of_a_chain_is_solved_by_hand():
    # x - y - z of equal weights: y = 0.15 + 0.85 (x + z), x = z = 0.15 + 0.85 y / 2
    pieces = ["a b", "b c", "c d"]
    middle = (0.15 + 0.85 * 2 * 0.15) / (1 - 0.85**2)
    assert rank(overlap(pieces)) == pytest.approx([0.15 + 0.425 * middle, middle, 0.15 + 0.425 * middle])
    assert textrank(pieces) == [1, 0, 2]


def lsa_by_svd(pieces):
    """The formula on the whole matrix of words and sentences."""
    split = [piece.split() for piece in pieces]
    rows = sorted({word for each in split for word in each})
    matrix = np.zeros((len(rows), len(pieces)))
    for i, word in enumerate(rows):
        shares = np.array([each.count(word) for each in split]) / sum(each.count(word) for each in split)
        entropy = -sum(share * math.log(share) for share in shares if share)
        matrix[i] = (shares > 0) * (1 - entropy / math.log(len(pieces)))
    _, strengths, topics = np.linalg.svd(matrix, full_matrices=False)
    strong = strengths >= strengths[0] / 2 * (1 - 1e-9)
    return np.sqrt((strengths[strong, None] ** 2 * topics[strong] ** 2).sum(axis=0))


def test_lsa_is_the_formula_on_the_singular_values():
    pieces = ["a b c d", "b c c d", "e f", "f g", "a h i", "d"]
    assert salience(pieces) == pytest.approx(lsa_by_svd(pieces), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6).map(" ".join), min_size=2, max_size=9))
def test_lsa_agrees_with_the_decomposition_wherever_no_topic_is_on_the_edge(pieces):
    assert np.isfinite(salience(pieces)).all()
    split = [piece.split() for piece in pieces]
    if len({tuple(sorted(set(each))) for each in split}) == len(pieces):
        assert salience(pieces) == pytest.approx(lsa_by_svd(pieces), abs=1e-6)


def test_more_words_than_are_multiplied_at_a_time_give_the_same_products():
    pieces = [" ".join(f"w{number}" for number in range(start, start + 2_000)) for start in range(0, 6_000, 1_000)]
    similarity = overlap(pieces)
    assert COLUMNS < 7_000
    assert similarity[0, 1] == pytest.approx(1_000 / (2 * math.log(2_000)))
    assert similarity[4, 5] == pytest.approx(1_000 / (2 * math.log(2_000)))
    assert similarity[0, 2] == 0


def test_equal_sentences_are_taken_from_the_front():
    assert first(textrank(["same words here"] * 5), 2) == [0, 1]


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
    "uri",
    [
        "baseline://lead-0",
        "baseline://lede-3",
        "baseline://",
        "oracle://best",
        "baseline://lead-3x",
        "baseline://lead-0w",
        "baseline://copy-3",
    ],
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
    everything = len(pieces)
    for order in (*(method(pieces) for method in (lead, lexrank, longest, lsa, textrank)),
                  random_pick(pieces, everything, seed)):  # fmt: skip
        assert sorted(order) == list(range(everything))
        chosen = first(order, count)
        assert chosen == sorted(chosen)
        assert len(chosen) == min(count, everything)
        kept = within(order, pieces, count)
        assert kept == sorted(kept)
        assert len(kept) <= 1 or sum(len(pieces[position].split()) for position in kept) <= count
    assert len(oracle(pieces, ["a b c"], count)) <= count
