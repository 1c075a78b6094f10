"""The catalogue: the models that every team starts with, as data, and how a team gets them.

Sizes, windows and licences are those of the models' own pages on the hub; decoding defaults are those the authors
published with the weights, or the ones this project's documents name. An API price is listed only where the provider
announced it for exactly this model, with the date of that announcement: prices change, so an editor checks them.
A name that moves (`…-latest`) has no price here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

from django.db import transaction

from lumigator.models import Team
from models_registry.models import Connection, ModelEntry

SUMMARIZATION = ("summarization",)
VARIABLES = {"openai": "OPENAI_API_KEY", "mistral": "MISTRAL_API_KEY"}
"""From scheme to the environment variable that holds a key for it."""


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens, and where and when the provider said so. `cached` None: charged like `into`."""

    into: str
    out: str
    source: str
    date: str
    cached: str | None = None


@dataclass(frozen=True)
class Shipped:
    """One entry of the catalogue. `formerly` holds slugs that it was shipped under before, so that renaming it here
    does not give a team two of it."""

    slug: str
    uri: str
    name: str
    about: str
    architecture: str = "seq2seq"
    privacy: str = "local"
    generation: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    window: int | None = None
    parameters: int | None = None
    size_bytes: int | None = None
    licence: str = ""
    website: str = ""
    price: Price | None = None
    is_baseline: bool = False
    tasks: tuple[str, ...] = SUMMARIZATION
    formerly: tuple[str, ...] = ()

    def entry(self, team: Team) -> ModelEntry:
        """The unsaved entry for a team."""
        price = self.price
        return ModelEntry(
            team=team,
            slug=self.slug,
            uri=self.uri,
            name=self.name,
            about=self.about,
            architecture=self.architecture,
            privacy=self.privacy,
            tasks=list(self.tasks),
            generation=dict(self.generation),
            options=dict(self.options),
            window=self.window,
            parameters=self.parameters,
            size_bytes=self.size_bytes,
            licence=self.licence,
            website=self.website,
            price_in=Decimal(price.into) if price else None,
            price_out=Decimal(price.out) if price else None,
            price_cached=Decimal(price.cached) if price and price.cached else None,
            price_source=price.source if price else "",
            price_date=date.fromisoformat(price.date) if price else None,
            is_baseline=self.is_baseline,
            from_catalogue=True,
        )


def _hub(repository: str, **facts: Any) -> Shipped:
    """An entry whose slug is its hub id and whose website is its page there."""
    name = facts.pop("name", repository.partition("/")[2])
    return Shipped(repository, f"hf://{repository}", name=name, website=f"https://huggingface.co/{repository}", **facts)


def _api(scheme: str, model: str, **facts: Any) -> Shipped:
    facts.setdefault("generation", ANSWER)
    return Shipped(
        f"{scheme}/{model}", f"{scheme}://{model}", name=model, architecture="causal", privacy="external", **facts
    )


def _baseline(slug: str, uri: str, name: str, about: str) -> Shipped:
    return Shipped(f"baseline/{slug}", uri, name, about, architecture="extractive", is_baseline=True)


NEWS = {
    "max_new_tokens": 142,
    "min_new_tokens": 56,
    "num_beams": 4,
    "length_penalty": 2.0,
    "no_repeat_ngram_size": 3,
    "early_stopping": True,
}
"""What facebook/bart-large-cnn was published with; its children inherit it."""
ANSWER = {"max_new_tokens": 512, "temperature": 0}
"""For APIs: as repeatable as they can be, and long enough for any summary that is one."""
CHAT = {"max_new_tokens": 256, "do_sample": False}

CATALOGUE: tuple[Shipped, ...] = (
    # Summarizers that run here
    _hub(
        "facebook/bart-large-cnn",
        about="The usual first choice for English news: three sentences, close to the text, quick on a GPU.",
        generation=NEWS,
        window=1024,
        parameters=406_000_000,
        size_bytes=1_630_000_000,
        licence="MIT",
    ),
    _hub(
        "sshleifer/distilbart-cnn-12-6",
        about="BART for English news with half its decoder: nearly the same summaries in less time.",
        generation=NEWS,
        window=1024,
        parameters=306_000_000,
        size_bytes=1_220_000_000,
        licence="Apache-2.0",
    ),
    _hub(
        "philschmid/bart-large-cnn-samsum",
        about="BART trained further on chat dialogues: short third-person summaries of who said what.",
        generation={**NEWS, "min_new_tokens": 10},
        window=1024,
        parameters=406_000_000,
        size_bytes=1_630_000_000,
        licence="MIT",
    ),
    _hub(
        "google/pegasus-cnn_dailymail",
        about="Pre-trained for summarization, then on English news: terse bullet-like sentences, parted by <n>.",
        generation={"max_new_tokens": 128, "min_new_tokens": 32, "num_beams": 8, "length_penalty": 0.8},
        window=1024,
        parameters=571_000_000,
        size_bytes=2_280_000_000,
    ),
    _hub(
        "mikeadimech/longformer-qmsum-meeting-summarization",
        about="For long meeting transcripts: reads 16 thousand tokens at once, where BART stops at one thousand.",
        generation={"max_new_tokens": 256, "num_beams": 4, "no_repeat_ngram_size": 3, "early_stopping": True},
        window=16_384,
        parameters=162_000_000,
        size_bytes=648_000_000,
    ),
    _hub(
        "mrm8488/t5-base-finetuned-summarize-news",
        about="A mid-sized T5 for English news; reads only 512 tokens, so long articles are cut.",
        generation={"max_new_tokens": 150, "num_beams": 2, "repetition_penalty": 2.5, "early_stopping": True},
        window=512,
        parameters=223_000_000,
        size_bytes=892_000_000,
    ),
    _hub(
        "Falconsai/text_summarization",
        about="The smallest summarizer here: a T5-small for general English text that runs well without a GPU.",
        generation={**NEWS, "max_new_tokens": 200, "min_new_tokens": 30},
        window=512,
        parameters=60_500_000,
        size_bytes=242_000_000,
        licence="Apache-2.0",
    ),
    _hub(
        "google/flan-t5-base",
        about="A small T5 that follows instructions, so that your prompt decides what it writes; reads 512 tokens.",
        generation={"max_new_tokens": 150, "num_beams": 4, "early_stopping": True},
        options={"reads_prompt": True},
        window=512,
        parameters=248_000_000,
        size_bytes=990_000_000,
        licence="Apache-2.0",
    ),
    # Instruction models that run here
    _hub(
        "mistralai/Mistral-7B-Instruct-v0.3",
        about="A 7B instruction model under your own roof; wants a GPU with 24 GB, and its hub page may ask "
        "you to accept its terms.",
        architecture="causal",
        generation=CHAT,
        window=32_768,
        parameters=7_250_000_000,
        size_bytes=14_500_000_000,
        licence="Apache-2.0",
    ),
    _hub(
        "Qwen/Qwen3-4B-Instruct-2507",
        about="A strong small instruction model in many languages with a very long window; wants a GPU with 12 GB.",
        architecture="causal",
        generation=CHAT,
        window=262_144,
        parameters=4_020_000_000,
        size_bytes=8_040_000_000,
        licence="Apache-2.0",
    ),
    _hub(
        "Qwen/Qwen2.5-1.5B-Instruct",
        about="A small instruction model in many languages that fits on almost any GPU.",
        architecture="causal",
        generation=CHAT,
        window=32_768,
        parameters=1_540_000_000,
        size_bytes=3_090_000_000,
        licence="Apache-2.0",
    ),
    _hub(
        "HuggingFaceTB/SmolLM2-360M-Instruct",
        about="A tiny English instruction model for a laptop without a GPU: the least a prompt can get you.",
        architecture="causal",
        generation=CHAT,
        window=8192,
        parameters=362_000_000,
        size_bytes=724_000_000,
        licence="Apache-2.0",
    ),
    # An endpoint of one's own
    Shipped(
        "llamafile/mistral-7b-instruct-v0.2",
        "endpoint://llamafile/mistralai/Mistral-7B-Instruct-v0.2",
        name="Mistral-7B-Instruct-v0.2 (llamafile)",
        about="The 7B model as a single-file server on a machine of yours; needs a connection named llamafile.",
        architecture="causal",
        privacy="private",
        generation=ANSWER,
        window=32_768,
        parameters=7_240_000_000,
        licence="Apache-2.0",
        website="https://huggingface.co/mistralai/Mistral-7B-Instruct-v0.2",
    ),
    # External APIs
    _api(
        "openai",
        "gpt-4o-mini",
        about="A cheap, quick general model by API and a sensible yardstick for what a hosted model adds.",
        window=128_000,
        website="https://platform.openai.com/docs/models/gpt-4o-mini",
        price=Price("0.15", "0.60", "OpenAI's announcement of gpt-4o-mini", "2024-07-18"),
    ),
    _api(
        "openai",
        "gpt-4-turbo",
        about="An older, dear model that earlier comparisons used; newer ones write as well for a fraction.",
        window=128_000,
        website="https://platform.openai.com/docs/models/gpt-4-turbo",
        price=Price("10", "30", "OpenAI's announcement of GPT-4 Turbo", "2023-11-06"),
    ),
    _api(
        "openai",
        "gpt-3.5-turbo-0125",
        about="An old model, kept to repeat earlier comparisons; check that OpenAI still serves it.",
        window=16_385,
        website="https://platform.openai.com/docs/models/gpt-3.5-turbo",
        price=Price("0.50", "1.50", "OpenAI's announcement of gpt-3.5-turbo-0125", "2024-01-25"),
    ),
    _api(
        "openai",
        "gpt-4.1-mini",
        about="Successor of gpt-4o-mini with a window of a million tokens, for documents that fit nowhere else.",
        window=1_047_576,
        website="https://platform.openai.com/docs/models/gpt-4.1-mini",
        price=Price("0.40", "1.60", "OpenAI's announcement of GPT-4.1", "2025-04-14", cached="0.10"),
    ),
    _api(
        "openai",
        "gpt-5-mini",
        about="A reasoning model: thinks before it writes, and the thinking is billed as output and takes time.",
        generation={"max_new_tokens": 2048, "reasoning_effort": "low"},
        window=400_000,
        website="https://platform.openai.com/docs/models/gpt-5-mini",
        price=Price("0.25", "2.00", "OpenAI's announcement of GPT-5", "2025-08-07", cached="0.025"),
    ),
    _api(
        "mistral",
        "open-mistral-7b",
        about="Kept for earlier comparisons: Mistral has retired it from its API. Take ministral-8b-latest, or run "
        "Mistral-7B-Instruct here.",
        window=32_768,
        licence="Apache-2.0",
        website="https://docs.mistral.ai/getting-started/models/",
    ),
    _api(
        "mistral",
        "ministral-8b-latest",
        about="Mistral's small hosted model and the successor of open-mistral-7b, from a European provider.",
        window=128_000,
        website="https://docs.mistral.ai/getting-started/models/",
    ),
    _api(
        "mistral",
        "mistral-small-latest",
        about="Mistral's next larger hosted model, for when the smallest does not do.",
        window=128_000,
        website="https://docs.mistral.ai/getting-started/models/",
    ),
    # What every model must beat, and what no copying can beat
    _baseline(
        "lead-3",
        "baseline://lead-3",
        "First three sentences",
        "The first three sentences of the document: hard to beat on news, free and instant.",
    ),
    _baseline(
        "textrank",
        "baseline://textrank-3",
        "TextRank, three sentences",
        "The three most central sentences by shared words: the classic extractive summarizer.",
    ),
    _baseline(
        "lead-60w",
        "baseline://lead-60w",
        "First sentences, 60 words",
        "The first sentences of at most 60 words together: the lead at the length of a usual summary.",
    ),
    _baseline(
        "lexrank",
        "baseline://lexrank-3",
        "LexRank, three sentences",
        "The three most central sentences by tf-idf cosine: TextRank's sibling, which weighs rare words more.",
    ),
    _baseline(
        "lsa",
        "baseline://lsa-3",
        "LSA, three sentences",
        "The three sentences that say most of the document's strongest topics, found by its word patterns.",
    ),
    _baseline(
        "longest-3",
        "baseline://longest-3",
        "Three longest sentences",
        "The three sentences of most words: a metric that likes these takes length for merit.",
    ),
    _baseline(
        "copy",
        "baseline://copy",
        "The document itself",
        "The whole document as its own summary: shows which metrics reward saying everything.",
    ),
    _baseline(
        "random-3",
        "baseline://random-3",
        "Three random sentences",
        "Three sentences by chance: a metric that likes a model no better than this tells you nothing.",
    ),
    _baseline(
        "oracle",
        "oracle://greedy",
        "Extractive oracle",
        "The sentences that match the reference best: it reads the answer, so it shows how far copying could go.",
    ),
)


def seed(team: Team) -> int:
    """Give the team what it lacks of the catalogue; how many entries that were. Safe to repeat.

    An entry that the team has is left as the team made it, also when it renamed it, gave it another address or
    retired it. What is there already is recognized by its slug, an earlier slug, or its address.
    """
    with transaction.atomic():
        Team.objects.select_for_update().get(pk=team.pk)  # two seeds at once would both find the same gaps
        known = ModelEntry.objects.filter(team=team).values_list("slug", "uri")
        taken = {word for slug, uri in known for word in (slug, uri)}
        missing = [each for each in CATALOGUE if taken.isdisjoint({each.slug, each.uri, *each.formerly})]
        made = ModelEntry.objects.bulk_create([each.entry(team) for each in missing], ignore_conflicts=True)
    return len(made)


def seed_connections(team: Team, environ: Mapping[str, str] | None = None) -> int:
    """A connection named "environment" for each API key in the environment whose provider the team has no connection
    of; how many were made. The key is stored encrypted."""
    environ = os.environ if environ is None else environ
    made = 0
    with transaction.atomic():
        Team.objects.select_for_update().get(pk=team.pk)
        for scheme, variable in VARIABLES.items():
            key = environ.get(variable, "").strip()
            if not key or Connection.objects.filter(team=team, provider=scheme).exists():
                continue
            connection = Connection(team=team, provider=scheme, name="environment")
            connection.set_key(key)
            connection.save()
            made += 1
    return made
