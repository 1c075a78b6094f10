"""Documents beyond the window: what is read of them, what is left out, and that everything is accounted for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models_registry.fitting import OMITTED, Room, divide, keep_ends, keep_head, keep_tail
from models_registry.providers import Access, Output, ProviderError, Request, serving
from models_registry.sentences import sentences
from models_registry.shortening import (
    MOST_LEVELS,
    STRATEGIES,
    MapReduce,
    Shortening,
    estimated_tokens,
    most_of_all_calls,
    problems,
    shortened,
)

PROMPT = "Say it short: {} Short:"  # four words around the document


def words(text):
    return len(text.split())


def characters(text):
    return 2 + len(text)


def jumpy(text):
    """A tokenizer that merges: one character more can be one token less."""
    return 3 + len(text) - 2 * text.count("ab")


class Telegraph:
    """A model of one token a word that writes the first words of what it reads, and refuses the word "boom"."""

    def __init__(self, limit, writes=4):
        self.limit, self.writes = limit, writes
        self.read = []

    def count(self, request):
        return words(request.source if request.prompt is None else request.prompt)

    def generate(self, requests):
        for request in reversed(requests):
            assert self.count(request) <= self.limit
            self.read.append(request.source)
            yield [self._write(request)]

    def _write(self, request):
        if "boom" in request.source:
            return Output(request.key, "refused", error_code="content_filter", error="no", input_tokens=1)
        text = " ".join(request.source.split()[: self.writes])
        read = self.count(request)
        return Output(
            request.key, "ok", text, finish_reason="stop", input_tokens=read, input_tokens_read=read,
            output_tokens=words(text), latency_ms=10,
        )  # fmt: skip

    def describe(self):
        return {"window": self.limit}

    def close(self):
        self.limit = 0


def numbered(count, length=4):
    """Sentences of so many words: S0 w w w. S1 w w w. …"""
    return " ".join(f"S{number} {'w ' * (length - 2)}w." for number in range(count))


def run(session, strategy, *sources, prompt=PROMPT):
    requests = [
        Request(key, source, prompt=prompt and prompt.format(source)) for key, source in enumerate(sources, start=70)
    ]
    outputs = [output for batch in Shortening(session, strategy).generate(requests) for output in batch]
    assert sorted(output.key for output in outputs) == [request.key for request in requests]
    return sorted(outputs, key=lambda output: output.key)


# Cutting


def test_the_beginning_ends_with_a_sentence():
    assert keep_head(numbered(9), Room(words, 18)) == numbered(4)


def test_the_end_begins_with_a_sentence():
    assert keep_tail(numbered(9), Room(words, 10)) == "S7 w w w. S8 w w w."


def test_both_ends_share_the_room_and_the_middle_is_left_out():
    assert keep_ends(numbered(9), Room(words, 16)) == f"{numbered(2)}{OMITTED}S7 w w w. S8 w w w."


@pytest.mark.parametrize("text", [numbered(9), "w " * 50 + "end", "x" * 80])
def test_both_ends_never_read_a_word_twice_however_tokens_are_counted(text):
    def count(kept):
        return 1 if OMITTED in kept else 1 + len(kept)

    front, _, back = keep_ends(text, Room(count, 31)).partition(OMITTED)
    assert "".join(f"{front}{back}".split()) == "".join(text.split())


def test_a_transcript_without_full_stops_is_cut_between_words():
    text = "Okay. " + "so we went on and on " * 50
    assert words(keep_head(text, Room(words, 40))) == 40
    assert words(keep_tail(text, Room(words, 40))) == 40


def test_a_word_longer_than_the_room_is_cut_inside():
    assert keep_head("x" * 100, Room(characters, 12)) == "x" * 10
    assert keep_tail("x" * 99 + "y", Room(characters, 12)) == "x" * 9 + "y"


def test_nothing_is_kept_where_the_prompt_fills_the_window():
    for keep in (keep_head, keep_tail, keep_ends):
        assert keep("some words", Room(characters, 2)) is None
    assert divide("some words", Room(characters, 1)) is None


def test_parts_are_about_equally_long():
    parts = divide(numbered(11), Room(words, 40))
    assert [words(part) for part in parts] == [24, 20]


texts = st.lists(
    st.sampled_from(["ab", "aab.", "Then", "x" * 30, "Bo: hi.", "\n", "。", "end!", "Dr.", "abab", "é"]), max_size=60
).map(" ".join)
counts = st.sampled_from([words, characters, jumpy, estimated_tokens])


@settings(deadline=None, max_examples=150)
@given(texts, counts, st.integers(6, 80))
def test_parts_fit_and_lose_repeat_and_reorder_nothing(text, count, limit):
    room = Room(count, limit)
    parts = divide(text, room)
    assert parts is not None
    assert all(count(part) <= limit and part for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


@settings(deadline=None, max_examples=150)
@given(texts, counts, st.integers(6, 80))
def test_what_is_kept_fits_and_comes_from_its_place(text, count, limit):
    if count(text) <= limit or not text.strip():
        return
    room, bare = Room(count, limit), text.strip()
    head, tail, ends = (keep(text, room) for keep in (keep_head, keep_tail, keep_ends))
    assert bare.startswith(head)
    assert bare.endswith(tail)
    assert max(count(head), count(tail), count(ends)) <= limit
    front, _, back = ends.partition(OMITTED)
    assert bare.startswith(front) or bare.endswith(front)
    assert bare.endswith(back)
    assert len(front) + len(back) <= len(bare)


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 60), st.integers(3, 12), st.integers(20, 80))
def test_a_cut_at_a_sentence_leaves_at_most_a_quarter_of_the_room(count, length, limit):
    text = numbered(count, length)
    if words(text) > limit:
        kept = keep_head(text, Room(words, limit))
        assert 4 * words(kept) >= 3 * limit
        assert kept.endswith(".") or words(kept) == limit


# Summaries of summaries


def test_a_document_that_fits_is_one_text():
    plan = MapReduce("One. Two.", Room(words, 5))
    assert (plan.texts, plan.level) == (["One. Two."], 0)
    plan.take(["Both."])
    assert (plan.text, plan.texts) == ("Both.", [])


def test_summaries_are_summarized_in_their_order():
    plan = MapReduce(numbered(12), Room(words, 20))
    assert len(plan.texts) == 3
    plan.take(["first one", "then two", "at last three"])
    assert plan.texts == ["first one\nthen two\nat last three"]
    plan.take(["all"])
    assert plan.text == "all"


def test_summaries_that_do_not_shrink_stop_it_in_words():
    plan = MapReduce(numbered(12), Room(words, 20))
    with pytest.raises(ProviderError, match="48 tokens, no fewer than the 48") as caught:
        plan.take(plan.texts)
    assert (caught.value.code, caught.value.failure) == ("cannot_reduce", "final")


def test_it_ends_after_four_levels():
    plan = MapReduce("w. " * 10_000, Room(words, 10))
    with pytest.raises(ProviderError, match="after 4 levels"):
        while plan.texts:
            plan.take([text[: -len("w. ")] or "w." for text in plan.texts])
    assert plan.level == MOST_LEVELS


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 400), st.integers(1, 8), st.integers(16, 60))
def test_it_always_ends(count, kept, limit):
    rounds = 0
    try:
        plan = MapReduce(numbered(count), Room(words, limit))
        while plan.texts:
            rounds += 1
            plan.take([" ".join(text.split()[:kept]) for text in plan.texts])
        assert plan.text.startswith("S0")
    except ProviderError as error:
        assert error.code == "cannot_reduce"
    assert rounds <= MOST_LEVELS + 1


def test_a_wrong_number_of_summaries_is_a_bug():
    with pytest.raises(ValueError, match="2 summaries for 1"):
        MapReduce("One.", Room(words, 5)).take(["a", "b"])


# The session


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_document_that_fits_is_read_as_it_is(strategy):
    session = Telegraph(limit=40)
    [output] = run(session, strategy, "A  short\none.")
    assert session.read == ["A  short\none."]
    assert (output.text, output.input_tokens, output.input_tokens_read) == ("A short one.", 7, 7)


@pytest.mark.parametrize(("strategy", "first"), [("cut_tail", "S0"), ("cut_head", "S5"), ("middle_out", "S0")])
def test_what_was_read_is_told_of_what_was_needed(strategy, first):
    session = Telegraph(limit=24)
    [output] = run(session, strategy, numbered(10))
    assert output.text.startswith(first)
    assert (output.input_tokens, output.input_tokens_read) == (44, words(session.read[0]) + 4)
    assert output.input_tokens_read < output.input_tokens


def test_a_model_that_reads_the_bare_document_is_cut_too():
    session = Telegraph(limit=20)
    run(session, "cut_head", numbered(10), prompt=None)
    assert session.read == [" ".join(sentences(numbered(10))[-5:])]


def test_all_parts_are_counted_in_the_end():
    session = Telegraph(limit=24)
    long, short = run(session, "map_reduce", numbered(12), "Just this.")
    assert short.text == "Just this."
    assert long.text == "S0 w w w."
    assert (long.finish_reason, long.output_tokens, long.latency_ms) == ("stop", 4 * 4, 4 * 10)
    assert long.input_tokens == long.input_tokens_read == 48 + 12 + 4 * 4


def test_texts_of_several_documents_are_asked_together():
    session, asked = Telegraph(limit=24), []
    shortening = Shortening(session, "map_reduce")
    shortening.starting = asked.append
    list(shortening.generate([Request(5, numbered(12)), Request(9, "Short."), Request(3, numbered(9))]))
    assert asked == [[5, 9, 3], [5, 3]]


def test_a_part_that_fails_fails_the_document_and_names_itself():
    [output] = run(Telegraph(limit=24), "map_reduce", f"{numbered(12)} boom")
    assert (output.status, output.error_code, output.error) == ("refused", "content_filter", "part 3 of 3: no")
    assert output.input_tokens > 40
    assert output.output_tokens is None


def test_a_model_that_writes_as_much_as_it_reads_says_so():
    [output] = run(Telegraph(limit=24, writes=99), "map_reduce", numbered(12))
    assert (output.status, output.error_code, output.text) == ("error", "cannot_reduce", "")
    assert output.output_tokens == 48


def test_a_prompt_that_fills_the_window_is_refused_with_the_room_it_leaves():
    [output] = run(Telegraph(limit=19), "map_reduce", numbered(12))
    assert (output.status, output.error_code) == ("error", "input_too_long")
    assert "leaves 15 of 19 tokens" in output.error


def test_a_prompt_without_its_document_is_left_alone():
    session = Telegraph(limit=10)
    shortening = Shortening(session, "cut_head")
    [[output]] = shortening.generate([Request(1, numbered(9), prompt="Only this.")])
    assert output.input_tokens == 2


class Forgetful(Telegraph):
    def generate(self, requests):
        yield from super().generate(requests[1:])


def test_a_session_that_leaves_a_text_unanswered_is_a_bug_and_no_endless_loop():
    with pytest.raises(ProviderError, match="2 outputs for 3 texts"):
        run(Forgetful(limit=24), "map_reduce", numbered(12))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["llama", "t5"])
def test_a_real_model_reads_what_fits_and_counts_it(tiny, name, strategy):
    spec = {"uri": "file://root/x", "path": str(tiny(name)), "generation": {"max_new_tokens": 4}}
    session = serving("file").open(spec, Access())
    source = "The river rose in the night. The bridge was closed! Bakers sold bread. " * 40
    request = Request(6, source, prompt=f"Sum up: {source} Short:")
    [[output]] = shortened(session, {"long_documents": strategy}).generate([request])
    assert (output.key, output.status) == (6, "ok")
    if strategy == "map_reduce":
        assert output.input_tokens == output.input_tokens_read > session.count(request)
    else:
        assert output.input_tokens == session.count(request)
        assert 0.7 * session.limit <= output.input_tokens_read <= session.limit
    session.close()


# Which session gets which


def test_a_local_model_cuts_the_end_by_itself():
    session = Telegraph(limit=24)
    assert shortened(session, {}) is session
    assert shortened(session, {"long_documents": "cut_tail"}) is session
    assert isinstance(shortened(session, {"long_documents": "middle_out"}), Shortening)


class Remote:
    """A model behind a network, which counts nothing before it is asked; fails at the given call."""

    def __init__(self, fails_at=0):
        self.read, self.fails_at = [], fails_at

    def generate(self, requests):
        for request in requests:
            self.read.append(request.prompt)
            if len(self.read) == self.fails_at:
                raise ProviderError("slower", code="rate_limited", failure="retry", retry_after=3)
            yield [Output(request.key, "ok", "Short.", input_tokens=100, input_tokens_read=100, output_tokens=2)]

    def describe(self):
        return {"model": "remote"}

    def close(self):
        self.read = []


NETWORK = {"long_documents": "map_reduce", "window": 1000, "generation": {"max_new_tokens": 100}}


def ask(remote, source, **changes):
    session = shortened(remote, {**NETWORK, **changes})
    [[output]] = session.generate([Request(1, source, prompt=f"Sum up: {source}")])
    return output


def test_a_network_model_is_cut_by_a_declared_estimate():
    remote, source = Remote(), numbered(1000)
    output = ask(remote, source, long_documents="cut_tail")
    assert estimated_tokens(remote.read[0]) <= 1000 - 100 - 64
    assert output.input_tokens_read == 100
    assert output.input_tokens == pytest.approx(
        100 * estimated_tokens(f"Sum up: {source}") / estimated_tokens(remote.read[0]), abs=1
    )
    assert shortened(remote, NETWORK).describe()["tokens_estimated_by"] == "bytes / 3"


def test_without_a_strategy_a_network_model_gets_the_whole_document():
    remote = Remote()
    assert shortened(remote, {"window": 10}) is remote


def test_an_error_after_paid_parts_may_be_billed():
    with pytest.raises(ProviderError) as caught:
        ask(Remote(fails_at=3), numbered(1000))
    assert (caught.value.code, caught.value.failure, caught.value.retry_after) == ("rate_limited", "unknown", 3)
    with pytest.raises(ProviderError) as caught:
        ask(Remote(fails_at=1), numbered(1000))
    assert caught.value.failure == "retry"


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3000), st.integers(3, 9), st.integers(200, 2000))
def test_all_calls_stay_within_what_was_foretold(count, length, window):
    remote, source = Remote(), numbered(count, length)
    request = Request(1, source, prompt=f"Sum up: {source}")
    calls, sent, written = most_of_all_calls(request, {**NETWORK, "window": window})
    ask(remote, source, window=window)
    assert len(remote.read) <= calls
    assert sum(len(text.encode()) for text in remote.read) <= sent
    assert len(remote.read) * 100 <= written


@pytest.mark.parametrize(
    ("spec", "place", "said"),
    [
        ({}, "host", None),
        ({"long_documents": "map_reduce"}, "host", None),
        ({"long_documents": "chop"}, "host", "cut_tail, cut_head, middle_out, map_reduce, not 'chop'"),
        ({"long_documents": ["x"]}, "host", "must be one of"),
        ({"long_documents": "cut_head"}, "inline", "reads every document whole"),
        ({"long_documents": "cut_head"}, "network", "window, which is not known"),
        ({**NETWORK, "window": 170}, "network", "leaves no room"),
        ({**NETWORK, "window": "big", "generation": "x"}, "network", "window, which is not known"),
        ({**NETWORK, "generation": {"max_new_tokens": "x"}}, "network", None),
        (NETWORK, "network", None),
    ],
)
def test_what_cannot_work_is_said_before(spec, place, said):
    found = problems(spec, place)
    assert (said in found[0]) if said else found == []
