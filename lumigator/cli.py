"""The command line: `lumigator …`. Each command is a few lines here and a verb elsewhere.

Exit status: 0 done, 1 not done (paused, cancelled, failed), 2 the request was wrong (said in words), 3 done but some
examples have errors. Of `gate`: 0 proven non-inferior, 1 proven worse, 4 inconclusive.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lumigator import embedded, environment

Arguments = argparse.Namespace
QUEUES = ("gpu", "api", "cpu")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    environment.load()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log file or a pipe shows each line when it is said
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lumigator.settings")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    options = parser().parse_args(arguments)
    if options.run is new_key:
        return new_key(options)
    try:
        with embedded.attach():
            import django

            django.setup()
            return _in_words(options)
    except embedded.EmbeddedError as exc:
        print(f"lumigator: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _in_words(options: Arguments) -> int:
    """Run the command; what the user asked wrongly is said without a traceback."""
    from datasets_app.ingest import BadFile
    from evaluations.planning import Refused
    from lumigator.asking import NotFound
    from models_registry.providers import ProviderError

    try:
        return options.run(options)
    except Refused as exc:
        for field, sentences in exc.errors.items():
            for sentence in sentences:
                print(f"lumigator: {field}: {sentence}", file=sys.stderr)
    except BadFile as exc:
        for line in str(exc).splitlines():
            print(f"lumigator: {line}", file=sys.stderr)
    except BrokenPipeError:  # `lumigator models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ProviderError, NotFound, OSError) as exc:
        print(f"lumigator: {exc}", file=sys.stderr)
    return 2


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="lumigator", description="Find the right model for your own summarization work.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    up_ = _command(commands, "up", up, "start everything on this machine: services, web pages, workers")
    up_.add_argument("--port", type=int, default=8000, help="of the web pages on 127.0.0.1 (default 8000)")

    demo_ = _command(commands, "demo", demo, "run the sample experiment to its end, then serve it (SERVE=0: do not)")
    demo_.add_argument("--port", type=int, default=8000)
    demo_.add_argument("--no-serve", action="store_true", default=os.environ.get("SERVE") == "0")
    demo_.add_argument("--sample", type=_at_least(1), help="only this many documents")

    run = _command(commands, "evaluate", evaluate, "compare models on your own file, here and now")
    run.add_argument("data", type=Path, metavar="DATA", help="CSV or JSONL file with your documents")
    run.add_argument("-m", "--model", action="append", default=[], metavar="MODEL", help="registry slug, URI or folder")
    run.add_argument("--predictions", action="append", default=[], metavar="NAME=FILE", help="outputs made elsewhere")
    run.add_argument("--metrics", nargs="+", metavar="NAME")
    run.add_argument("--primary-metric", metavar="PART")
    run.add_argument("--source-column", metavar="NAME")
    run.add_argument("--reference-column", action="append", metavar="NAME")
    run.add_argument("--prompt", help="template; {document} is replaced")
    run.add_argument("--sample", type=_at_least(1), metavar="N", help="a seeded sample of this many documents")
    run.add_argument("--seed", type=_at_least(0), default=0)
    run.add_argument("--budget", type=_dollars, metavar="USD", help="never spend more than this")
    run.add_argument(
        "--metric-option", action="append", default=[], metavar="METRIC.OPTION=VALUE", help="e.g. rouge.stemmer=false"
    )
    run.add_argument("--no-reuse", action="store_true", help="generate anew what an earlier run already has")
    run.add_argument(
        "--long-documents", metavar="WAY", help="beyond a model's window: cut_tail, cut_head, middle_out or map_reduce"
    )
    run.add_argument("--no-baselines", action="store_true", help="leave out lead-3, random and the oracle")
    run.add_argument("--json", type=Path, metavar="OUT", help="write the comparison document")
    run.add_argument("--export", type=Path, metavar="DIR", help="write outputs and scores per example as JSONL")

    compare_ = _command(commands, "compare", compare, "print the comparison of an experiment")
    compare_.add_argument("experiment", type=int)
    compare_.add_argument("--json", action="store_true")
    compare_.add_argument("--metric", default="")
    compare_.add_argument("--against", metavar="LABEL", help="hold the others against this candidate, not the leader")

    gate_ = _command(commands, "gate", gate, "may a candidate replace another? exit 0 proven, 1 worse, 4 inconclusive")
    gate_.add_argument("--baseline", required=True, metavar="EXP[:LABEL]", help="what is in use: experiment, candidate")
    gate_.add_argument("--candidate", required=True, metavar="EXP[:LABEL]", help="what would replace it")
    gate_.add_argument("--metric", default="rougeLsum", metavar="PART", help="default: rougeLsum")
    gate_.add_argument("--margin", type=float, required=True, help="the largest loss that is acceptable, above 0")
    gate_.add_argument("--json", action="store_true")

    worker_ = _command(commands, "worker", work, "do the work of one or more queues until stopped")
    worker_.add_argument("--queue", action="append", choices=QUEUES, required=True)

    for name, about in (("datasets", "your datasets"), ("models", "the registry"), ("experiments", "your experiments")):
        listing = _command(
            commands, name, {"datasets": datasets, "models": models, "experiments": experiments}[name], about
        )
        verbs = {"models": ("check",), "datasets": ("profile", "download")}.get(name, ())
        listing.add_argument("what", nargs="?", default="list", choices=("list", "show", "add", *verbs))
        listing.add_argument("which", nargs="?", help="id or slug of what is there, file, folder or URI (add)")
        if name == "datasets":
            listing.add_argument("--source-column")
            listing.add_argument("--reference-column", action="append")
            listing.add_argument("--format", default="csv", choices=("csv", "jsonl", "parquet"), help="of a download")
            listing.add_argument("--output", type=Path, metavar="FILE", help="of a download; else standard output")

    token_ = _command(commands, "token", token, "make an API token and print it, once")
    token_.add_argument("--name", default="command line")
    token_.add_argument("--role", default="editor", choices=("viewer", "editor", "admin"))

    _command(commands, "sign-in", sign_in, "print a one-time sign-in link")
    selfcheck_ = _command(commands, "selfcheck", selfcheck, "compute the metrics' known values on this installation")
    selfcheck_.add_argument("--json", action="store_true", help="print the whole report as JSON")
    _command(commands, "doctor", doctor, "check this installation and say in words what is wrong")
    _command(commands, "new-key", new_key, "print a fresh secret for LUMIGATOR_SECRET_KEY or LUMIGATOR_ENCRYPTION_KEYS")
    return top


def _command(commands: Any, name: str, run: Callable[[Arguments], int], about: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(name, help=about, description=about)
    made.set_defaults(run=run)
    return made


def _at_least(least: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        number = int(text)
        if not least <= number < 1 << 31:
            raise argparse.ArgumentTypeError(f"give a whole number from {least} to {(1 << 31) - 1}")
        return number

    whole_number.__name__ = "whole number"  # what argparse calls it when int() fails
    return whole_number


def _dollars(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1_000_000:
        raise argparse.ArgumentTypeError("give an amount in dollars, from 0 to 1,000,000")
    return number


def up(options: Arguments) -> int:
    from lumigator.laptop import prepare, web, workers
    from lumigator.models import SignInLink
    from lumigator.supervising import supervise

    _, owner = prepare()
    secret = SignInLink.issue(owner)
    print(
        f"Lumigator is at http://127.0.0.1:{options.port}/ - sign in, once: http://127.0.0.1:{options.port}/sign-in/{secret}/"
    )
    return supervise([web(options.port), *workers()])


def demo(options: Arguments) -> int:
    from lumigator.demonstrating import demonstrate

    status, experiment = demonstrate(sample=options.sample)
    if options.no_serve or status not in (0, 3):
        return 0 if status == 3 else status
    print(f"\nThe same, with every document: http://127.0.0.1:{options.port}/experiments/{experiment.pk}/comparison/")
    return up(options)


def evaluate(options: Arguments) -> int:
    from evaluations import terminal
    from lumigator.asking import experiment_on_file
    from lumigator.laptop import prepare, workers_running

    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)  # now, not after an hour of work
    if options.export:
        options.export.mkdir(parents=True, exist_ok=True)
    team, owner = prepare()
    experiment = experiment_on_file(team, owner, options)
    return terminal.run(experiment, workers_running, json_to=options.json, export_to=options.export)


def selfcheck(options: Arguments) -> int:
    from evaluations import selfchecking

    told = selfchecking.report()
    print(json.dumps(told, indent=2) if options.json else "\n".join(selfchecking.in_words(told)))
    return 0 if told["passed"] else 1


def compare(options: Arguments) -> int:
    from evaluations import comparing, terminal
    from evaluations.models import Experiment
    from lumigator.asking import NotFound, found

    experiment = found(Experiment, options.experiment)
    against = None
    if options.against:
        labels = {each.label: each.pk for each in experiment.candidates.all()}
        if (against := labels.get(options.against)) is None:
            raise NotFound(
                f"experiment {experiment.pk} has no candidate {options.against!r}; it has {', '.join(labels)}"
            )
    try:
        document = comparing.comparison(experiment, metric=options.metric, against=against)
    except KeyError:
        known = ", ".join(part["name"] for part in comparing.comparison(experiment)["parts"])
        raise NotFound(f"experiment {experiment.pk} has no metric part {options.metric!r}; it has {known}") from None
    print(json.dumps(document, indent=2)) if options.json else terminal.show(document)
    return 0


def gate(options: Arguments) -> int:
    from evaluations import gating

    told = gating.gate(options.baseline, options.candidate, options.metric, options.margin)
    print(json.dumps(told.as_dict(), indent=2, ensure_ascii=False) if options.json else told.sentence)
    return told.status


def work(options: Arguments) -> int:
    from evaluations import actors  # noqa: F401 - declares what bells may ask for
    from evaluations.working import WorkerProcess
    from lumigator.supervising import exit_with_parent

    exit_with_parent()
    WorkerProcess(tuple(dict.fromkeys(options.queue))).run()
    return 0


def datasets(options: Arguments) -> int:
    from lumigator import asking

    return asking.datasets(options)


def models(options: Arguments) -> int:
    from lumigator import asking

    return asking.models(options)


def experiments(options: Arguments) -> int:
    from lumigator import asking

    return asking.experiments(options)


def token(options: Arguments) -> int:
    from lumigator.laptop import prepare
    from lumigator.models import ApiToken, Role

    team, owner = prepare()
    _, secret = ApiToken.issue(user=owner, team=team, name=options.name, role=Role(options.role))
    print(secret)
    return 0


def sign_in(options: Arguments) -> int:
    from lumigator.laptop import prepare
    from lumigator.models import SignInLink

    _, owner = prepare()
    print(f"/sign-in/{SignInLink.issue(owner)}/")
    return 0


def doctor(options: Arguments) -> int:
    from lumigator.examining import findings

    wrong = 0
    for good, sentence in findings():
        print(("ok   " if good else "WRONG"), sentence)
        wrong += not good
    return 1 if wrong else 0


def new_key(options: Arguments) -> int:
    import base64
    import secrets

    print(base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
