"""From a request to token ids: a conversation in place of a prompt."""

from __future__ import annotations

import pytest

from models_registry.encoding import Encoding
from models_registry.providers import Request
from models_registry.testing import tiny_gpt2, tiny_llama

SAID = (
    {"role": "system", "content": "new report"},
    {"role": "user", "content": "the river"},
    {"role": "assistant", "content": "old bridge"},
    {"role": "user", "content": "the harvest of the valley"},
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_llama(tmp_path_factory.mktemp("llama")))


def read(encoding, request):
    fitted = encoding.fit(request)
    return fitted, encoding.tokenizer.decode(fitted.ids)


def test_a_conversation_is_put_into_the_chat_template_as_it_is(tokenizer):
    encoding = Encoding(tokenizer, {}, is_seq2seq=False, limit=100)
    _, text = read(encoding, Request(1, SAID[-1]["content"], messages=SAID))
    places = [text.index(each["content"]) for each in SAID]
    assert places == sorted(places)
    assert "assistant" in text[places[-1] :], "the model is asked to go on"


def test_of_a_long_conversation_the_last_message_is_cut(tokenizer):
    encoding = Encoding(tokenizer, {}, is_seq2seq=False, limit=40)
    long = (*SAID[:-1], {"role": "user", "content": "the harvest " * 60})
    request = Request(1, long[-1]["content"], messages=long)
    fitted, text = read(encoding, request)
    assert len(fitted.ids) <= 40 < fitted.needed == encoding.count(request)
    assert "new report" in text and "old bridge" in text


def test_the_models_own_system_prompt_gives_way_to_the_conversations(tokenizer):
    encoding = Encoding(tokenizer, {"system": "small village"}, is_seq2seq=False, limit=100)
    assert "small village" not in read(encoding, Request(1, "the river", messages=SAID))[1]
    assert "small village" in read(encoding, Request(1, "the river", prompt="the river"))[1]


def test_a_model_without_a_chat_template_reads_the_messages_one_after_the_other(tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2(tmp_path))
    encoding = Encoding(tokenizer, {}, is_seq2seq=False, limit=100)
    _, text = read(encoding, Request(1, SAID[-1]["content"], messages=SAID))
    assert [text.index(each["content"]) for each in SAID] == sorted(text.index(each["content"]) for each in SAID)
