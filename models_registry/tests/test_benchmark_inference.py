"""The inference benchmark: every way of writing a tiny model's texts is measured, and what must be equal is."""

from __future__ import annotations

import json

import pytest

from benchmarks import inference
from benchmarks.inference import Work, folder_of, in_a_process, one, requests_of

TINY = {
    "tiny-t5": {"kind": "t5", "d_model": 32},
    "tiny-bart": {"kind": "bart", "d_model": 32, "max_position_embeddings": 256},
}


@pytest.fixture(autouse=True)
def shapes(monkeypatch):
    monkeypatch.setattr(inference, "SHAPES", TINY)


@pytest.mark.parametrize("model", sorted(TINY))
@pytest.mark.parametrize("beams", [4, 1])
def test_all_ways_of_a_work_write_the_same_but_int8(tmp_path, model, beams):
    pytest.importorskip("ctranslate2", reason="the extra fast-cpu is not installed")
    rows = list(inference._rows_of(Work(model, beams, 5, 5, 90, 8, times=1), tmp_path, apart=False))
    assert [(row.work.rpartition(", ")[2], row.peer.rpartition(", ")[2]) for row in rows] == [
        (engine, peer)
        for engine in ("8 tokens", "CTranslate2 fp32", "CTranslate2 int8")
        for peer in ("row by row", "naive batches")
    ]
    assert [row.equal for row in rows] == [True, True, True, True, None, None]
    assert all(row.ours > 0 < row.theirs and row.more_is_better for row in rows)


def test_a_way_is_measured_in_a_process_of_its_own(tmp_path):
    work = Work("tiny-bart", 4, 4, 5, 60, 6)
    folder = folder_of(work, tmp_path)
    asked = {"how": "batches", "work": vars(work), "folder": str(folder), "place": str(tmp_path)}
    apart, here = in_a_process(asked), one(asked)
    assert apart["texts"] == here["texts"]
    assert apart["rss"] > 50
    assert json.dumps(apart)


def test_the_peers_have_the_stock_beam_search(tmp_path):
    work = Work("tiny-t5", 4, 3, 5, 60, 6)
    session = inference.opened("rows", work, folder_of(work, tmp_path), tmp_path)
    assert session.describe()["beam_search"] == "one cross-attention cache per document"
    plain = inference._plain(session)
    assert not {"_reorder_cache", "_expand_inputs_for_generation"} & set(vars(plain))
    assert not any("forward" in vars(module) for module in plain.modules())


def test_documents_are_mixed_in_length_and_order():
    lengths = [len(request.source.split()) for request in requests_of(Work("tiny-t5", 1, 8, 100, 900, 8))]
    assert (min(lengths), max(lengths)) == (100, 900)
    assert lengths != sorted(lengths)
    assert len(set(lengths)) == 8
