#!/usr/bin/env python
"""Django's own commands; `lumigator` (lumigator/cli.py) is what people use."""

import os
import sys

NEEDS_NO_DATABASE = {
    "check", "makemigrations", "collectstatic", "spectacular", "help", "version", "--help", "--version",
}  # fmt: skip


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lumigator.settings")
    from django.core.management import execute_from_command_line

    from lumigator import embedded, environment

    environment.load()
    if len(sys.argv) < 2 or sys.argv[1] in NEEDS_NO_DATABASE:
        execute_from_command_line(sys.argv)
        return
    with embedded.attach():
        execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
