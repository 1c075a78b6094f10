"""The form of the upload page, and the choice of what each column of a file is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django import forms
from django.conf import settings

from datasets_app import formats
from datasets_app.formats import Problem
from datasets_app.models import Dataset
from datasets_app.reading import Columns

USES = {
    "": "not used",
    "source": "the document",
    "reference": "a reference summary",
    "id": "the id",
    "group": "the group",
    "tag": "a tag",
}
SINGLE = ("source", "id", "group")


class UploadForm(forms.Form):
    file = forms.FileField(max_length=200, label="File")
    name = forms.CharField(
        max_length=200, required=False, help_text="What your team calls this dataset; the name of the file otherwise."
    )
    privacy = forms.ChoiceField(
        choices=Dataset.Privacy.choices,
        initial=Dataset.Privacy.ANY,
        help_text="Private texts can be kept from every model that runs outside this installation.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        accepted = [extension for one in formats.available().values() for extension in one.extensions]
        self.fields["file"].widget.attrs["accept"] = ",".join(accepted)
        self.fields["file"].error_messages["empty"] = "This file is empty. Choose one with a document a row."

    def clean_file(self) -> Any:
        file = self.cleaned_data["file"]
        if file.size > settings.UPLOAD_LIMIT_BYTES:
            limit = settings.UPLOAD_LIMIT_BYTES / (1 << 20)
            raise forms.ValidationError(f"This file is larger than {limit:,.0f} MiB. Split it into several datasets.")
        return file


@dataclass(frozen=True)
class ColumnUse:
    """One line of the mapping form: a column of the file, what it is used as, and how its cells look."""

    position: int
    name: str
    use: str
    sample: str

    @property
    def field(self) -> str:
        return f"use-{self.position}"

    @property
    def choices(self) -> Iterator[tuple[str, str, bool]]:
        return ((use, label, use == self.use) for use, label in USES.items())


def use_of(name: str, columns: Columns) -> str:
    singles = {columns.source: "source", columns.id: "id", columns.group: "group"}
    many = dict.fromkeys(columns.references, "reference") | dict.fromkeys(columns.tags, "tag")
    return (singles | many).get(name, "")


def chosen_columns(data: Mapping[str, str], header: Sequence[str]) -> tuple[Columns, list[Problem]]:
    """The mapping that the form says, and the uses that were given to more than one column."""
    named: dict[str, list[str]] = {use: [] for use in USES}
    for position, name in enumerate(header):
        use = data.get(f"use-{position}", "")
        named[use if use in USES else ""].append(name)
    problems = [
        Problem(
            None, "", f"{len(named[use])} columns are chosen as {USES[use]}: {', '.join(named[use])}.", "Choose one."
        )
        for use in SINGLE
        if len(named[use]) > 1
    ]
    first = {use: next(iter(named[use]), "") for use in SINGLE}
    references, tags = tuple(named["reference"]), tuple(named["tag"])
    return Columns(first["source"], references, first["id"], first["group"], tags), problems
