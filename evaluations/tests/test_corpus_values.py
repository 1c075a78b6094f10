"""BLEU of a corpus is no mean of BLEUs: it is made of the counts that scores keep."""

from __future__ import annotations

import pytest
import sacrebleu

from evaluations import comparing
from evaluations.finalizing import recomputed
from evaluations.models import Aggregate, Generation, Score
from evaluations.tests.engine import make_dataset, make_experiment, make_fake, run

pytestmark = pytest.mark.django_db(transaction=True)
DOCUMENTS = [
    f"Team {number} met on day {number} in room {number % 7}. It chose plan {number % 5}. The end."
    for number in range(40)
]


@pytest.fixture
def experiment(atlas):
    fake = make_fake(atlas, text="{source:.50}")
    return run(make_experiment(make_dataset(atlas, DOCUMENTS), fake, metrics=["bleu", "chrf"], primary_metric="bleu"))


def test_it_equals_sacrebleus_value_of_all_outputs_together(experiment):
    outputs = Generation.objects.order_by("example__index").select_related("example")
    references = [[output.example.references[0] for output in outputs]]
    expected = sacrebleu.corpus_bleu([output.text for output in outputs], references).score / 100
    metrics = comparing.comparison(experiment)["candidates"][0]["metrics"]
    assert metrics["bleu_corpus"]["mean"] == pytest.approx(expected, abs=1e-9)
    expected = sacrebleu.corpus_chrf([output.text for output in outputs], references).score / 100
    assert metrics["chrf_corpus"]["mean"] == pytest.approx(expected, abs=1e-9)


def test_its_interval_holds_it_and_says_its_method(experiment):
    found = comparing.comparison(experiment)["candidates"][0]["metrics"]["bleu_corpus"]
    assert found["low"] < found["mean"] < found["high"]
    assert found["method"] == "bootstrap" and found["n"] == 40


def test_only_scores_that_make_a_corpus_value_keep_counts(experiment):
    assert set(Score.objects.filter(counts__isnull=False).values_list("part", flat=True)) == {"bleu", "chrf"}


def test_it_can_be_recomputed_from_its_rows(experiment):
    aggregate = Aggregate.objects.get(part="bleu_corpus")
    assert recomputed(aggregate) == pytest.approx(aggregate.mean, abs=1e-12)


def test_below_thirty_documents_it_has_no_interval(atlas):
    fake = make_fake(atlas, text="{source:.50}")
    asked = {"metrics": ["bleu"], "primary_metric": "bleu"}
    document = comparing.comparison(run(make_experiment(make_dataset(atlas, DOCUMENTS[:20]), fake, **asked)))
    found = document["candidates"][0]["metrics"]["bleu_corpus"]
    assert found["mean"] is not None and found["low"] is None


def test_an_output_that_failed_counts_as_empty(atlas):
    fake = make_fake(atlas, text="{source:.50}", faults={"Team 3 ": "exception"})
    asked = {"metrics": ["bleu", "chrf"], "primary_metric": "bleu"}
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS), fake, **asked))
    found = comparing.comparison(experiment)["candidates"][0]["metrics"]
    outputs = Generation.objects.order_by("example__index").select_related("example")
    references = [[output.example.references[0] for output in outputs]]
    texts = [output.text for output in outputs]
    assert texts.count("") == 1
    expected = sacrebleu.corpus_bleu(texts, references).score / 100
    assert found["bleu_corpus"]["mean"] == pytest.approx(expected, abs=1e-9)
    expected = sacrebleu.corpus_chrf(texts, references).score / 100
    assert found["chrf_corpus"]["mean"] == pytest.approx(expected, abs=1e-9)
    assert found["bleu_corpus"]["n"] == 40 and found["bleu_corpus"]["states"] == {"value": 39, "failed": 1}


def test_it_cannot_decide(atlas):
    from evaluations.planning import Refused

    with pytest.raises(Refused, match="bleu_corpus"):
        make_experiment(
            make_dataset(atlas, DOCUMENTS), make_fake(atlas), metrics=["bleu"], primary_metric="bleu_corpus"
        )
