"""`manage.py lumigator …` is the command `lumigator …`, for those who reach for manage.py first."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand

from lumigator import cli


class Command(BaseCommand):
    help = "The command line of Lumigator: manage.py lumigator --help lists what it does."

    def run_from_argv(self, argv: list[str]) -> None:
        # Our own parser reads everything, so that the two spellings cannot come to mean different things.
        sys.exit(cli.main(argv[2:]))

    def handle(self, *args: Any, **options: Any) -> None:
        raise NotImplementedError("call lumigator.cli.main")
