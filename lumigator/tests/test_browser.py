"""Whole stories in a real Chromium, with a real worker process, as a new user would click them (SECURITY S18).

Every story fails on any message of the console, script error, policy violation, dialog or failed request: see
`browsing.Visitor`. With LUMIGATOR_SCREENSHOTS=folder each examined page leaves its picture, light and dark.
"""

from __future__ import annotations

import csv
import io
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from datasets_app.ingest import ingest
from datasets_app.models import Dataset
from evaluations import annotating, comparing, completing, steering
from evaluations.importing import import_rows
from evaluations.models import Candidate, Experiment, Generation
from evaluations.tests.engine import make_experiment, make_fake, run
from evaluations.tests.fleet import Fleet, fleet_in, wait_until
from lumigator.models import SignInLink
from lumigator.tests.browsing import Visitor
from models_registry import catalogue, choosing
from models_registry.models import Connection, ModelEntry

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
LIGHT, DARK = "light", "dark"
EXAMINE = (Path(__file__).parent / "examine_page.js").read_text()
N = 32
"""Documents of a story: enough for a ranking, which begins at 30."""

PLACES = ("bridge", "harbour", "school", "market", "museum", "forest", "library")
DOCUMENTS = [
    f"The council of village {number} met in winter. It agreed to build a new {PLACES[number % 7]}. "
    f"{'The old one was closed. ' * (number % 2)}A teacher asked for {number} windows{' and a garden' * (number % 3)}. "
    f"The meeting ended late."
    for number in range(N)
]
REFERENCES = [f"Village {number} agreed to build a {PLACES[number % 7]}." for number in range(N)]

Meet = Callable[..., Visitor]


@pytest.fixture
def meet(chromium: Any, live_server: Any) -> Iterator[Meet]:
    """meet(user, **options of the browser's context) → a Visitor, whose every offence fails the story at its end."""
    met: list[Visitor] = []

    def meeting(user: Any = None, **options: Any) -> Visitor:
        met.append(Visitor(chromium, live_server.url, user, **options))
        return met[-1]

    yield meeting
    for visitor in met:
        visitor.leaves()
    assert [offence for visitor in met for offence in visitor.offences] == []


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from models_registry.testing import tiny_t5

    return tiny_t5(tmp_path_factory.mktemp("weights") / "tiny-t5")


@pytest.fixture
def summarizer(atlas: Any, tiny_t5: Path) -> ModelEntry:
    """A real encoder-decoder of two layers, in a registry with the shipped catalogue."""
    catalogue.seed(atlas)
    entry = choosing.register_folder(atlas, tiny_t5)
    # A batch for each document, so that there is time to watch: each is committed by itself.
    entry.generation, entry.options = {"max_new_tokens": 60}, {"token_budget": 1}
    entry.save()
    return entry


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Real workers; their leases are long, so that the one that is frozen below loses nothing."""
    with fleet_in(tmp_path, LUMIGATOR_LEASE_SECONDS="60") as made:
        yield made


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """A file whose columns have none of the names that we know."""
    path = tmp_path / "reports.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        write = csv.writer(file).writerow
        write(["Ticket", "Abstract", "Report", "Office"])
        for number, (document, reference) in enumerate(zip(DOCUMENTS, REFERENCES, strict=True)):
            write([f"T-{number:03}", reference, document, ("North", "South")[number % 2]])
    return path


def comes_in_with_a_password(visitor: Visitor, name: str) -> None:
    page = visitor.goes_to("/")
    assert visitor.path == "/sign-in/?next=/"
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(f"{name}-correct-horse")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Which model should you use?").wait_for()


def comes_in_by_link(visitor: Visitor, user: User) -> None:
    page = visitor.goes_to(f"/sign-in/{SignInLink.issue(user)}/")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Which model should you use?").wait_for()


def brings_documents(visitor: Visitor, path: Path) -> Dataset:
    """From home to the page of the new dataset, with the columns corrected on the way."""
    page = visitor.page
    page.get_by_role("link", name="Bring documents").first.click()
    page.get_by_label("File:", exact=True).set_input_files(path)
    page.get_by_label("Name:", exact=True).fill("Village reports")
    page.get_by_role("button", name="Look at it").click()
    page.get_by_role("heading", name="Is this what you mean?").wait_for()
    for column, use in {
        "Ticket": "the id", "Abstract": "a reference summary", "Report": "the document", "Office": "a tag"
    }.items():  # fmt: skip
        page.get_by_label(column).select_option(label=use)
    page.get_by_role("button", name="Look again").click()
    assert page.get_by_label("Report").locator("option:checked").inner_text() == "the document"
    page.get_by_role("button", name="Store the dataset").click()
    page.get_by_role("heading", name="Village reports").wait_for()
    assert f"{N} documents, all with a reference summary." in visitor.words
    return Dataset.objects.get()


def asks_for_a_comparison(visitor: Visitor, model: ModelEntry) -> Experiment:
    """From the page of the dataset to the page of the experiment, which has been started."""
    page = visitor.page
    page.get_by_role("link", name="Compare models on it").click()
    assert page.get_by_label("Dataset").locator("option:checked").inner_text().startswith("Village reports")
    assert page.get_by_role("checkbox", name="Baselines").is_checked()
    page.get_by_role("checkbox", name=model.name).check()
    for heavy in ("meteor", "bertscore"):
        page.locator(f"[name=metrics][value={heavy}]").uncheck()
    page.get_by_label("Name of the experiment").fill("A first look")
    page.get_by_role("button", name="Create and start").click()
    page.get_by_role("heading", name="Which model summarizes Village reports best?").wait_for()
    return Experiment.objects.get()


def outcomes(experiment: Experiment, model: ModelEntry) -> int:
    return Generation.objects.filter(candidate__experiment=experiment, candidate__model=model).count()


def answered(visitor: Visitor, model: ModelEntry) -> str:
    """What the row of the model says: "12 of 40"."""
    return visitor.page.locator("#progress tr", has_text=model.slug).locator("td").first.inner_text()


def watches_until_the_end(visitor: Visitor, fleet: Fleet, experiment: Experiment, model: ModelEntry) -> None:
    """The numbers move on the page that is open: it is not loaded again while the state stays the same."""
    page = visitor.page
    page.get_by_text("No worker is running").wait_for()
    (worker,) = fleet.start()
    page.locator("#progress .state", has_text="Running").wait_for(timeout=30_000)
    page.evaluate("window.isTheSamePage = true")
    before = answered(visitor, model)
    wait_until(lambda: 0 < outcomes(experiment, model) < N)
    fleet.send(signal.SIGSTOP, worker)  # in the middle of its documents, so that there is something to see
    part = outcomes(experiment, model)
    page.locator("#progress td", has_text=f"{part} of {N}").first.wait_for()
    assert before != answered(visitor, model)
    assert page.evaluate("window.isTheSamePage")
    fleet.send(signal.SIGCONT, worker)
    page.get_by_role("link", name="Read the comparison").wait_for(timeout=60_000)
    assert page.locator("[hx-trigger]").count() == 0


def reads_the_comparison(visitor: Visitor, experiment: Experiment) -> None:
    page = visitor.page
    page.get_by_role("link", name="Read the comparison").click()
    page.wait_for_url("**/comparison/")
    experiment.refresh_from_db()
    sentence = comparing.comparison(experiment)["recommendation"]["sentence"]
    assert page.locator("main h1 + p.lede").inner_text() == sentence
    assert page.locator("th.group").first.inner_text() == "The only model"
    assert page.locator("table.candidates tbody tr[id]").count() == experiment.candidates.count() == 4


def sorts_by_another_metric(visitor: Visitor) -> None:
    page = visitor.page
    page.get_by_role("combobox", name="Metric").select_option("rouge1")
    page.wait_for_url("**metric=rouge1**")
    assert visitor.page.locator("p.lede").inner_text().startswith("By ROUGE-1 instead of")
    header = page.locator("table.candidates thead")
    header.get_by_role("link", name="ROUGE-1").click()
    page.wait_for_url("**sort=**")
    shown = [float(text) for text in page.locator("table.candidates tbody tr[id] td:nth-child(2)").all_inner_texts()]
    assert shown == sorted(shown, reverse=page.locator("thead [aria-sort=descending]").count() == 1)


FIFTH, SIXTH = re.compile(r"/examples/5/\??$"), re.compile(r"/examples/6/\??$")


def walks_through_the_outputs(visitor: Visitor) -> None:
    page = visitor.page
    page.get_by_role("link", name="Where they disagree").click()
    page.locator("tbody th a").first.click()
    page.wait_for_url(re.compile(r"/examples/\d+/$"))
    assert page.locator("article ins").count() > 0
    assert page.locator("article del").count() > 0
    page.goto(re.sub(r"\d+/$", "5/", page.url))
    page.get_by_role("link", name="Next").click()
    page.wait_for_url(SIXTH)
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(FIFTH)
    page.keyboard.press("j")
    page.wait_for_url(SIXTH)
    page.get_by_role("link", name="Previous").click()
    page.wait_for_url(FIFTH)


def test_a_new_user_brings_documents_and_reads_a_comparison(
    bob: User, meet: Meet, reports: Path, summarizer: ModelEntry, fleet: Fleet
) -> None:
    visitor = meet()
    comes_in_with_a_password(visitor, "bob")
    brings_documents(visitor, reports)
    experiment = asks_for_a_comparison(visitor, summarizer)
    watches_until_the_end(visitor, fleet, experiment, summarizer)
    reads_the_comparison(visitor, experiment)
    sorts_by_another_metric(visitor)
    walks_through_the_outputs(visitor)


def test_the_same_without_script(atlas: Any, bob: User, meet: Meet, reports: Path, fleet: Fleet) -> None:
    fleet.start()
    catalogue.seed(atlas)
    quick = make_fake(atlas, "quick", text="{source:.60}")  # loading real weights a second time would show nothing new
    visitor = meet(java_script_enabled=False)
    comes_in_by_link(visitor, bob)
    brings_documents(visitor, reports)
    experiment = asks_for_a_comparison(visitor, quick)
    visitor.page.get_by_role("link", name="Read the comparison").wait_for(timeout=60_000)  # the page refreshes itself
    reads_the_comparison(visitor, experiment)
    visitor.page.get_by_role("combobox", name="Metric").select_option("rouge1")
    visitor.page.get_by_role("button", name="Show").click()
    assert "?metric=rouge1" in visitor.path


def test_a_link_signs_in_only_once(bob: User, meet: Meet) -> None:
    secret = SignInLink.issue(bob)
    for visitor, status in ((meet(), 200), (meet(), 410)):
        visitor.expected = {410}
        page = visitor.goes_to(f"/sign-in/{secret}/")
        with page.expect_navigation() as navigation:
            page.get_by_role("button", name="Sign in").click()
        assert navigation.value.status == status
    assert page.get_by_role("heading").inner_text() == "This link no longer works"


# --- Problems -------------------------------------------------------------------------------------------------------


def test_a_ragged_file_is_refused_with_its_row_and_column(bob: User, meet: Meet, tmp_path: Path) -> None:
    path = tmp_path / "ragged.csv"
    path.write_text("examples,ground_truth,office\nOne long text.,One.,North\nTwo long texts.,Two.\n")
    visitor = meet(bob)
    visitor.expected = {422}
    page = visitor.goes_to("/datasets/upload/")
    page.get_by_label("File:", exact=True).set_input_files(path)
    page.get_by_role("button", name="Look at it").click()
    page.get_by_role("button", name="Store the dataset").click()
    page.get_by_text("It was not stored.").wait_for()
    where, what, cure = page.locator("table").first.locator("tbody tr").first.locator("td").all_inner_texts()
    assert "row 3" in where.lower()
    assert "office" in f"{where} {what}", "the column that is missing"
    assert cure
    assert complaints(visitor, structure=True, contrast=True, focus=True, width=True) == []
    assert not Dataset.objects.exists()


OFFERS = re.compile("^(New|Add|Upload|Bring|Compare models on)")


def test_a_viewer_sees_nothing_to_change(small_world: World, meet: Meet) -> None:
    visitor = meet(small_world.vera)
    for path in pages_for(small_world.vera, small_world, api=False):
        if not path.startswith(("/components/", "/sign-in/")):
            page = visitor.goes_to(path)
            assert page.locator("main form[method=post], main form[data-api], main .danger").count() == 0, path
            assert page.get_by_role("link", name=OFFERS).count() == 0, path


def test_the_pages_of_another_team_do_not_exist(small_world: World, charlie: User, meet: Meet) -> None:
    visitor = meet(charlie)
    visitor.expected = {404}
    for path in (f"/experiments/{small_world.experiment.pk}/comparison/", f"/datasets/{small_world.dataset.pk}/"):
        page = visitor.goes_to(path)
        assert page.get_by_role("heading").inner_text() == "There is no such page"
        assert re.search(r"Status 404 · request id [0-9a-f]{32}", visitor.words)
        assert page.locator("main").get_by_role("link", name="Go home").is_visible()
    assert complaints(visitor, structure=True, contrast=True, focus=True, width=True) == []


# --- Hostile texts --------------------------------------------------------------------------------------------------

PAYLOADS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "<svg/onload=alert(3)>",
    '"><script>alert(4)</script>',
    "' autofocus onfocus=alert(5) x='",
    '" onmouseover="alert(6)',
    "</title><script>alert(7)</script>",
    "</textarea><img src=x onerror=alert(8)>",
    "</script><script>alert(9)</script>",
    "<iframe srcdoc='<script>alert(10)</script>'>",
    "<a href=javascript:alert(11)>there</a>",
    "<style>*{background:url(//x.test/12)}</style>",
    "<base href=//x.test/13>",
    "<meta http-equiv=refresh content='0;url=//x.test/14'>",
    "<details open ontoggle=alert(15)>",
    "<!--><img src=x onerror=alert(16)>-->",
    "<template><script>alert(17)</script></template>",
    "<p hx-get=/sign-out/ hx-trigger=load hx-on::load=alert(18)>",
    "{{ 7|add:12 }}{% debug %}${alert(19)}",
    "&lt;script&gt;alert(20)&lt;/script&gt;",
    "javascript:alert(21)",
    "=HYPERLINK(\"http://x.test/22\",\"there\")",
    "+1+cmd|' /C calc'!A23",
    "-2+3+cmd|' /C calc'!A24",
    "@SUM(1+25)*cmd|' /C calc'!A0",
)  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def changelists() -> Iterator[str]:
    """The lists of the admin that show texts of the rooms."""
    for kind in admin.site._registry:
        if kind._meta.app_label in ("datasets_app", "models_registry", "evaluations"):
            yield reverse(f"admin:{kind._meta.app_label}_{kind._meta.model_name}_changelist")


def in_names(longest: int) -> list[str]:
    """All payloads, as few names of at most `longest` characters as possible."""
    names = [""]
    for payload in PAYLOADS:
        if len(names[-1]) + len(payload) + 1 > longest:
            names.append("")
        names[-1] = f"{names[-1]} {payload}".strip()
    return names


@pytest.fixture
def hostile(atlas: Any, alice: User) -> Experiment:
    """An experiment in which every text that somebody can choose is a payload; document 0 holds all of them."""
    text = io.StringIO()
    write = csv.writer(text).writerow
    write(["examples", "ground_truth", "id", "group", *PAYLOADS])
    everything = "\n".join(PAYLOADS)
    for document in (everything, *PAYLOADS, *PAYLOADS[:10]):
        write([document, document, "", document[:100], *PAYLOADS])
    names = in_names(160)
    columns = {"source": "examples", "references": ["ground_truth"], "group": "group", "tags": list(PAYLOADS)}
    datasets = [
        ingest(
            team=atlas, user=alice, name=name, file=io.BytesIO(text.getvalue().encode()), file_name=f"{place}<b>.csv",
            columns=columns,
        )
        for place, name in enumerate(names)
    ]  # fmt: skip
    wishes = {"name": names[0], "may_be_empty": True, "baselines": False}
    experiment = make_experiment(datasets[0], **wishes)
    for label in in_names(160):
        rows = ({"index": index, "output": f"{everything} {index}"} for index in range(datasets[0].n_examples))
        import_rows(experiment, label, rows)
    run(experiment)
    for entry in range(len(names)):
        make_fake(atlas, f"fake-{entry}")
        ModelEntry.objects.filter(slug=f"fake-{entry}").update(name=names[entry], about=everything)
        Connection.objects.create(team=atlas, provider="openai", name=names[entry][:60], base_url="")
    for name in names[1:]:
        make_experiment(datasets[1], **{**wishes, "name": name})
    return experiment


def test_hostile_texts_are_only_texts(hostile: Experiment, alice: User, meet: Meet) -> None:
    broken, *_ = hostile.candidates.all()
    Candidate.objects.filter(pk=broken.pk).update(problem=" ".join(PAYLOADS))
    Generation.objects.filter(candidate=broken, example__index=1).update(
        status="error", text="", error_code="fake", error=" ".join(PAYLOADS)
    )
    User.objects.filter(pk=alice.pk).update(is_staff=True, is_superuser=True)
    visitor = meet(alice)
    there, data = f"/experiments/{hostile.pk}/", f"/datasets/{hostile.dataset_id}/"
    whole = [
        "/datasets/", data, f"{data}examples/", f"{data}examples/0/", "/experiments/", there, f"{there}comparison/",
        f"{there}examples/", f"{there}examples/0/?against=none", f"{there}examples/1/", "/models/", "/models/fake-0/",
    ]  # fmt: skip
    partly = [
        "/", "/experiments/new/", "/models/connections/", f"{there}examples/0/", f"/api/v1{there}", f"/api/v1{data}",
        f"/api/v1{there}examples/1/",
        *changelists(),
    ]  # fmt: skip
    for path in [*whole, *partly]:
        page = visitor.goes_to(path)
        page.mouse.move(300, 300)
        assert page.locator("script:not([src]), iframe, base, [hx-on\\:\\:load], main style").count() == 0, path
        missing = [payload for payload in PAYLOADS if payload not in visitor.words]
        assert path in partly or missing == [], path
    assert page.url.startswith(visitor.address)


def test_a_downloaded_table_runs_nothing(hostile: Experiment, alice: User, meet: Meet) -> None:
    visitor = meet(alice)
    page = visitor.goes_to(f"/datasets/{hostile.dataset_id}/")
    with page.expect_download() as dataset:
        page.get_by_role("link", name="CSV").click()
    visitor.goes_to(f"/experiments/{hostile.pk}/comparison/")
    with page.expect_download() as results:
        page.get_by_role("link", name="Export").click()
    for download in (dataset.value, results.value):
        text = Path(download.path()).read_text(encoding="utf-8-sig")
        cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
        assert [cell for cell in cells if cell.startswith(FORMULA) and not is_number(cell)] == []
        for payload in PAYLOADS:
            assert any(payload in cell for cell in cells), f"{payload} is lost"


def is_number(cell: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?(e-\d+)?", cell) is not None


def test_the_visitor_notices_what_it_must(bob: User, meet: Meet) -> None:
    """The negative control of all stories here."""
    visitor = meet(bob)
    page = visitor.goes_to("/")
    page.evaluate("""() => {
        const add = (tag, facts) => document.body.append(Object.assign(document.createElement(tag), facts));
        add("script", {textContent: "window.isHurt = true"});
        add("img", {src: "/nothing.png"});
        add("img", {src: "https://x.test/a.png"});
        console.debug("hello");
        setTimeout(() => { throw new Error("broken"); });
        alert("hurt");
    }""")
    page.wait_for_timeout(300)
    assert not page.evaluate("window.isHurt")
    heard, visitor.offences = "\n".join(visitor.offences), []
    for words in (
        "a dialog says: hurt", "hello", "script failed: broken", "nothing.png answered 404", "img-src 'self'",
        "script-src 'self'",
    ):  # fmt: skip
        assert words in heard, words


# --- For everybody --------------------------------------------------------------------------------------------------


class World:
    """One of everything that a page can show."""

    def __init__(self, atlas: Any, alice: User, vera: User, *, is_small: bool = False) -> None:
        self.alice, self.vera = alice, vera
        lines = ["examples,ground_truth,ground_truth_2,id,group,kind"]
        for n, (document, reference) in enumerate(zip(DOCUMENTS, REFERENCES, strict=True)):
            lines.append(f'"{document}","{reference}","It met {n}.",t-{n},office-{n},mail')
        file = io.BytesIO("\n".join(lines).encode())
        columns = {
            "source": "examples", "references": ["ground_truth", "ground_truth_2"], "id": "id", "group": "group",
            "tags": ["kind"],
        }  # fmt: skip
        self.dataset = ingest(
            team=atlas, user=alice, name="Village reports", file=file, file_name="reports.csv", columns=columns
        )
        texts = {
            "harbour-large": "Village agreed to build bridge. {source:.60}", "meadow-base": "{source:.90}",
            "orchard-chat": "{source:.40} was agreed.",
        }  # fmt: skip
        catalogue.seed(atlas)
        self.models = [make_fake(atlas, name, text=text) for name, text in texts.items()]
        self.models.append(make_fake(atlas, "pebble-that-fails", faults={"village 7 ": "error", "village 9 ": "empty"}))
        compared = self.models[-1:] if is_small else self.models
        self.experiment = run(make_experiment(self.dataset, *compared, name="Who is best?", baselines=not is_small))
        make_experiment(self.dataset, self.models[0], name="A draft")
        self.running = make_experiment(self.dataset, *self.models[:2], name="On its way")
        steering.start(self.running)
        self.drafts = annotating.create(
            team=atlas, user=alice, data={"dataset": self.dataset, "model": self.models[0].slug}
        )
        run(self.drafts.experiment)
        self.asked = completing.ask(atlas, alice, self.models[0].slug, completing.Wish(text="One. Two."))
        self.connection = Connection.objects.create(team=atlas, provider="openai", name="Ours", base_url="")

    def address(self, name: str, arguments: set[str]) -> dict[str, Any] | None:
        """The values for the address called `name`, or None where there is no such thing to show."""
        if "format" in arguments:
            return None
        owners = {
            "connection": self.connection, "offered": self.connection, "dataset": self.dataset,
            "ground-truth": self.drafts, "playground": self.asked, "completion": self.asked,
        }  # fmt: skip
        owner = next((thing for word, thing in owners.items() if word in name), self.experiment)
        known = {"pk": owner.pk, "index": 7, "slug": self.models[0].slug, "secret": "spent", "batch": self.asked.batch}
        return {argument: known[argument] for argument in arguments}


@pytest.fixture
def world(atlas: Any, alice: User, vera: User) -> World:
    return World(atlas, alice, vera)


@pytest.fixture
def small_world(atlas: Any, alice: User, vera: User) -> World:
    return World(atlas, alice, vera, is_small=True)


THEIRS = {"api-docs"}
"""Pages whose contents are drawn by the script of another project."""


def addresses(resolver: Any, before: str = "") -> Iterator[tuple[str, set[str]]]:
    """(name, arguments) of every address but those of the admin, which Django owns."""
    for entry in resolver.url_patterns:
        if isinstance(entry, URLResolver):
            if entry.app_name != "admin":
                yield from addresses(entry, before + str(entry.pattern))
        elif isinstance(entry, URLPattern) and entry.name:
            pattern = before + str(entry.pattern)
            yield entry.name, set(re.findall(r"<(?:\w+:)?(\w+)>", pattern))


def pages_for(user: User, world: World, *, api: bool = True) -> list[str]:
    """Every address that answers a GET of this user with a whole page of HTML, found by asking all there are."""
    client = Client()
    client.force_login(user)
    found = {}
    for name, arguments in addresses(get_resolver()):
        values = world.address(name, arguments)
        if values is None or name in THEIRS or (name.startswith("api-") and not api):
            continue
        path = reverse(name, kwargs=values)
        answer = client.get(path, headers={"accept": "text/html"})
        is_page = answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/html")
        if is_page and not answer.streaming and answer.content.lstrip()[:9].lower() == b"<!doctype":
            found[path] = name
    return list(found)


def complaints(visitor: Visitor, **wants: bool) -> list[str]:
    told = visitor.page.evaluate(EXAMINE, wants)
    return [f"{visitor.path}: {words}" for words in told]


def examined(visitor: Visitor, path: str) -> list[str]:
    """What is wrong with a page: as it is built, in both themes, and on both widths."""
    page = visitor.page
    page.emulate_media(color_scheme=LIGHT)
    visitor.goes_to(path)
    found = complaints(visitor, structure=True, contrast=True, focus=True, width=True)
    picture = path.strip("/").replace("/", "-") or "home"
    visitor.keeps_a_picture(f"{picture}-light")
    page.emulate_media(color_scheme=DARK)
    found += [f"{words} in the dark" for words in complaints(visitor, contrast=True)]
    visitor.keeps_a_picture(f"{picture}-dark")
    page.set_viewport_size({"width": 400, "height": 800})
    found += complaints(visitor, width=True)
    visitor.keeps_a_picture(f"{picture}-narrow")
    page.set_viewport_size({"width": 1280, "height": 800})
    return found


def test_every_page_can_be_used_by_everybody(world: World, meet: Meet) -> None:
    viewer, admin = meet(world.vera), meet(world.alice)
    seen = pages_for(world.vera, world)
    changed = pages_for(world.alice, world, api=False)
    assert {"/", "/components/", "/api/v1/", f"/experiments/{world.experiment.pk}/comparison/"} <= set(seen)
    assert {"/datasets/upload/", "/experiments/new/", "/models/add/", "/models/connections/"} <= set(changed)
    open_ended = f"/experiments/{world.running.pk}/"
    found = [words for path in [*seen, open_ended] for words in examined(viewer, path)]
    found += [f"{words} (admin)" for path in changed for words in examined(admin, path)]
    assert found == []


def test_the_examination_finds_what_is_wrong(bob: User, meet: Meet) -> None:
    """The negative control of the story above."""
    visitor = meet(bob)
    page = visitor.goes_to("/")
    page.set_content(
        """<!doctype html><html><head><meta charset="utf-8"></head><body>
        <h1>One</h1><h1>Two</h1><i id="a"></i><i id="a"></i><input name="bare"><a href="/"></a>
        <svg></svg><img src="data:,"><table><tr><th>No scope</th></tr></table><label for="gone">To nothing</label>"""
    )
    page.evaluate("""() => {
        const style = (element, text) => { element.style.cssText = text; };
        style(document.querySelector("h1"), "color: #999; background: #fff; width: 3000px");
        style(document.querySelector("input"), "outline: none");
    }""")
    found = "\n".join(complaints(visitor, structure=True, contrast=True, focus=True, width=True))
    for words in (
        "2 first headings", "no title", "language", "id a is used twice", "bare has no label", "no scope",
        "“” has no name", "no alternative text", "#gone, which does not exist", "contrast of 2.8",
        "does not show its focus", "px wide",
    ):  # fmt: skip
        assert words in found, words


def test_a_comparison_of_six_prints_on_two_pages_at_most(world: World, meet: Meet) -> None:
    assert world.experiment.candidates.count() >= 6
    visitor = meet(world.vera)
    page = visitor.goes_to(f"/experiments/{world.experiment.pk}/comparison/")
    printed = page.pdf(prefer_css_page_size=True)
    if folder := os.environ.get("LUMIGATOR_SCREENSHOTS"):
        (Path(folder) / "comparison.pdf").write_bytes(printed)
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b(?!s)", printed)) <= 2
