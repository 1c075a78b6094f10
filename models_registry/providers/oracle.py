"""The extractive oracle: the sentences that best match the reference. An upper bound, not a method.

It reads the reference that it is scored against, so it shows how far copying sentences could go at most, greedily.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from models_registry.extracting import oracle
from models_registry.providers import Access, Provider, ProviderError, Request, Session, Spec
from models_registry.providers.baseline import Extracting

_NAME = re.compile(r"oracle://greedy(?:-([1-9][0-9]?))?")


def parse(spec: Spec) -> int | None:
    """Most sentences of `oracle://greedy-3`, None for `oracle://greedy`. Raises ProviderError("unknown_model")."""
    found = _NAME.fullmatch(str(spec.get("uri", "")))
    if not found:
        raise ProviderError(
            f"no oracle is called {str(spec.get('uri', ''))[:100]!r}: write oracle://greedy or oracle://greedy-3",
            code="unknown_model",
            failure="stop",
        )
    return int(found.group(1)) if found.group(1) else None


def problems(spec: Spec) -> list[str]:
    try:
        parse(spec)
    except ProviderError as error:
        return [str(error)]
    return ["an extractive method has no generation parameters: remove them"] if spec.get("generation") else []


def open(spec: Spec, access: Access) -> Session:
    most = parse(spec)

    def choose(request: Request, pieces: Sequence[str]) -> list[int]:
        if not any(reference.strip() for reference in request.references):
            raise ProviderError(
                "the oracle needs a reference, and this example has none", code="no_reference", failure="final"
            )
        return oracle(pieces, request.references, most)

    return Extracting(choose, {"method": "oracle", "sentences": most, "reads_the_reference": True})


provider = Provider(
    name="oracle",
    label="Extractive oracle (reads the reference)",
    about=(
        "Picks the sentences that raise ROUGE-1 + ROUGE-2 F against the reference most, one after another. It reads "
        "the reference it is scored against: a bound for methods that copy sentences, never a candidate to choose."
    ),
    schemes=("oracle",),
    place="inline",
    queue="cpu",
    open=open,
    problems=problems,
    uses_references=True,
)
