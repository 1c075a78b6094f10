"""Outputs made elsewhere: uploaded with the dataset and scored like any other, never generated here."""

from __future__ import annotations

from models_registry.providers import Access, Provider, ProviderError, Session, Spec


def problems(spec: Spec) -> list[str]:
    if not str(spec.get("uri", "")).startswith("import://"):
        return ["the address of imported outputs begins with import://"]
    return ["imported outputs have no generation parameters: remove them"] if spec.get("generation") else []


def open(spec: Spec, access: Access) -> Session:
    """There is nothing to open. Raises ProviderError(code="imported", failure="stop")."""
    raise ProviderError(
        "these outputs were imported and cannot be generated again: import the missing ones",
        code="imported",
        failure="stop",
    )


provider = Provider(
    name="imported",
    label="Imported outputs",
    about="Summaries that were written elsewhere, by people or by another system, and uploaded to be compared.",
    schemes=("import",),
    place="inline",
    queue="cpu",
    open=open,
    problems=problems,
)
