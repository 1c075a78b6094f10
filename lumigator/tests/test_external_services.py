"""The services that the environment names are used in place of the laptop mode's: PostgreSQL, Redis, an S3 bucket.

Every story has the real thing: a second PostgreSQL and Valkey that this run's own know nothing of, SeaweedFS, the
PostgreSQL 15 and the redis-server of this machine where it has them, and processes started as an operator would.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from botocore.config import Config
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile

from datasets_app import pending
from datasets_app.models import Dataset
from lumigator import testing_s3
from lumigator.bucket import CLIENT
from lumigator.embedded import servers
from lumigator.settings import files_from, new_key
from lumigator.testing_s3 import S3
from lumigator.unavailable import FileStoreUnavailable

ROOT = Path(__file__).resolve().parents[2]
POSTGRES_15 = Path("/usr/lib/postgresql/15/bin")
CSV = b"examples,ground_truth\nThe mill closed in May. Nobody bought it.,The mill closed.\nRain fell.,\n"
API = "/api/v1/datasets/"
WAIT = 60.0


# --- files in a bucket


@pytest.fixture
def bucket(s3: S3, settings) -> S3:
    use(settings, s3)
    return s3


def use(settings, s3: S3) -> None:
    """What a process does that starts with this server in its environment."""
    settings.STORAGES = {**settings.STORAGES, "default": files_from(s3.variables())}


def upload(client, data: bytes = CSV, **fields):
    asked = {"file": SimpleUploadedFile("mills.csv", data, "text/html"), **fields}
    return client.post(API, asked, format="multipart")


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_without_a_bucket_files_stay_in_the_home() -> None:
    assert files_from({"AWS_ACCESS_KEY_ID": "somebody"})["BACKEND"].endswith("FileSystemStorage")
    assert files_from({"S3_BUCKET": ""}) == files_from({})


def test_a_dataset_lives_in_the_bucket_from_upload_to_deletion(
    bucket, as_user, bob, atlas, django_capture_on_commit_callbacks
):
    client = as_user(bob, api=True)
    made = upload(client)
    assert made.status_code == 201, made.content
    digest = sha256(CSV).hexdigest()
    key = f"uploads/t{atlas.pk}/{digest}"
    assert bucket.keys(f"uploads/t{atlas.pk}/") == [key]
    found = bucket.client().get_object(Bucket=bucket.bucket, Key=key)
    assert found["Body"].read() == CSV
    assert found["ContentType"] == "application/octet-stream", "never what the browser said"
    with Dataset.objects.get(pk=made.data["id"]).file.open() as file:
        assert file.read() == CSV

    answer = client.get(f"{API}{made.data['id']}/download/?format=jsonl")
    lines = [json.loads(line) for line in b"".join(answer.streaming_content).splitlines()]
    assert [line["ground_truth"] for line in lines] == [["The mill closed."], []]

    with django_capture_on_commit_callbacks(execute=True):
        assert client.delete(f"{API}{made.data['id']}/").status_code == 204
    assert bucket.keys(f"uploads/t{atlas.pk}/") == []


def test_the_same_bytes_twice_are_one_object_until_nobody_uses_it(
    bucket, as_user, bob, atlas, django_capture_on_commit_callbacks
):
    client = as_user(bob, api=True)
    first, second = (upload(client, again=True).data["id"] for _ in range(2))
    assert len(bucket.keys(f"uploads/t{atlas.pk}/")) == 1
    for gone, left in ((first, 1), (second, 0)):
        with django_capture_on_commit_callbacks(execute=True):
            client.delete(f"{API}{gone}/")
        assert len(bucket.keys(f"uploads/t{atlas.pk}/")) == left


def test_the_pages_keep_a_file_in_the_bucket_between_two_steps(bucket, as_user, bob, atlas):
    client = as_user(bob)
    chosen = {"file": SimpleUploadedFile("mills.csv", CSV), "name": "", "privacy": "any"}
    assert client.post("/datasets/upload/", chosen).status_code == 302
    assert len(bucket.keys(f"pending/u{bob.pk}/")) == 1
    assert pending.sweep() == 0, "it is young"
    assert b"ground_truth" in client.get("/datasets/upload/check/").content
    stored = client.post("/datasets/upload/check/", {"action": "store", "use-0": "source", "use-1": "reference"})
    assert stored.status_code == 302, stored.content
    assert bucket.keys(f"pending/u{bob.pk}/") == []
    assert Dataset.objects.get().file.name == f"uploads/t{atlas.pk}/{sha256(CSV).hexdigest()}"


def test_a_file_of_many_parts_arrives_whole_and_lies_on_disk_when_opened(bucket):
    data = os.urandom(1 << 20) * 10
    key = default_storage.save("trial/large", ContentFile(data))
    with default_storage.open(key) as file:
        assert sha256(file.read()).digest() == sha256(data).digest()
        assert file.file._rolled, "10 MiB stayed in memory"
    default_storage.delete(key)
    with pytest.raises(FileNotFoundError, match="trial/large"):
        default_storage.open(key)


def test_the_bucket_is_private_and_a_signed_address_is_for_one_key_and_one_minute(bucket):
    first, other = (default_storage.save(f"trial/{name}", ContentFile(name.encode())) for name in ("one", "two"))
    bare = f"/{bucket.bucket}/{first}"
    assert fetch(bucket, bare)[0] == 403
    assert fetch(bucket, f"/{bucket.bucket}?list-type=2")[0] == 403
    signed = urlsplit(default_storage.url(first))
    assert "X-Amz-Expires=60" in signed.query
    status, headers, body = fetch(bucket, f"{bare}?{signed.query}")
    assert (status, body) == (200, b"one")
    assert (headers["Content-Type"], headers["Content-Disposition"]) == ("application/octet-stream", "attachment")
    assert fetch(bucket, f"/{bucket.bucket}/{other}?{signed.query}")[0] == 403


def fetch(s3: S3, path: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(urlsplit(s3.endpoint).netloc, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def wrong_secret(s3: S3) -> S3:
    return s3.but(secret_key="not-the-secret-of-anybody")


def missing_bucket(s3: S3) -> S3:
    key, secret = s3.admin
    return s3.but(bucket="never-made", access_key=key, secret_key=secret)


def somebody_elses_bucket(s3: S3) -> S3:
    return s3.but(bucket="never-made")


def server_down(s3: S3) -> S3:
    return s3.but(endpoint=f"http://127.0.0.1:{closed_port()}")


REFUSALS = {
    wrong_secret: ("refuses our credentials", "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    missing_bucket: ("does not have the bucket", "Create it there, or correct S3_BUCKET."),
    somebody_elses_bucket: ("refuses our credentials", "may read, write, list and delete in the bucket"),
    server_down: ("does not answer (EndpointConnectionError)", "AWS_ENDPOINT_URL"),
}


@pytest.mark.parametrize("broken", REFUSALS, ids=lambda broken: broken.__name__)
def test_a_store_that_cannot_be_used_is_said_in_words_and_nothing_is_stored(broken, s3, settings, as_user, bob, caplog):
    there = broken(s3)
    use(settings, there)
    reason, cure = REFUSALS[broken]
    began = time.monotonic()
    answer = upload(as_user(bob, api=True))
    assert time.monotonic() - began < 10, "within seconds"
    assert answer.status_code == 503
    assert f"The file store {reason}" in answer.json()["detail"]
    (told,) = (record.getMessage() for record in caplog.records if record.name == "lumigator.unavailable")
    assert cure in told, "the operator's log has the cure"
    assert there.endpoint in told
    assert there.secret_key not in told + answer.content.decode()
    assert not Dataset.objects.exists()


def test_a_page_says_it_too(s3, settings, as_user, bob):
    use(settings, wrong_secret(s3))
    page = as_user(bob).post("/datasets/upload/", {"file": SimpleUploadedFile("a.csv", CSV), "privacy": "any"})
    assert page.status_code == 503
    assert "The file store refuses our credentials" in page.content.decode()


def test_a_store_that_accepts_and_stays_silent_is_given_up(s3, settings):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use(settings, s3.but(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}"))
        hurry = CLIENT.merge(Config(read_timeout=0.5, retries={"total_max_attempts": 1}))
        default = settings.STORAGES["default"]
        impatient = {**default, "OPTIONS": {**default["OPTIONS"], "client_config": hurry}}
        settings.STORAGES = {**settings.STORAGES, "default": impatient}
        with pytest.raises(FileStoreUnavailable, match="ReadTimeoutError"):
            default_storage.exists("anything")
    assert 3 * (CLIENT.connect_timeout + CLIENT.read_timeout) < 60, "its usual patience"


def test_half_a_key_is_said(s3, settings):
    use(settings, s3.but(secret_key=""))
    with pytest.raises(FileStoreUnavailable, match="AWS_SECRET_ACCESS_KEY"):
        default_storage.exists("anything")


def test_two_servers_side_by_side_share_nothing_and_end(s3):
    with testing_s3.serving() as other:
        other.client().put_object(Bucket=other.bucket, Key="here", Body=b"only")
        assert other.keys("here") == ["here"]
        assert s3.keys("here") == []
    with pytest.raises(ProcessLookupError):
        os.kill(other.pid, 0)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", urlsplit(other.endpoint).port), timeout=1)


def test_a_server_does_not_outlive_a_test_run_that_is_killed():
    story = """
import sys
from lumigator.testing_s3 import serving
with serving() as s3:
    print(s3.pid, s3.endpoint, flush=True)
    sys.stdin.read()
"""
    with tempfile.TemporaryDirectory(prefix="lumigator-killed-") as folder:  # its own is not removed by the dead
        owner = subprocess.Popen(
            [sys.executable, "-c", story],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "TMPDIR": folder},
        )
        pid, endpoint = owner.stdout.readline().split()
        owner.send_signal(signal.SIGKILL)
        owner.communicate()
        eventually(lambda: not is_there(int(pid)))
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", urlsplit(endpoint).port), timeout=1)


def is_there(group: int) -> bool:
    """Whether a process of this group lives."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "this never became true"
        time.sleep(0.05)


# --- processes on services that they are told of


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that every account may enter: PostgreSQL does not run as root, so root lends it another one."""
    with tempfile.TemporaryDirectory(prefix="lumigator-external-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def elsewhere(open_folder: Path) -> Iterator[dict[str, str]]:
    """The services of somebody else's LUMIGATOR_HOME, as its embedded.json tells of them."""
    home = open_folder / "elsewhere"
    holding = "import sys; from lumigator import embedded\nwith embedded.attach(): print(flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", holding],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**bare_environment(), "LUMIGATOR_HOME": str(home)},
    )
    assert holder.stdout.readline(), "the services did not come up"
    try:
        yield json.loads((home / "embedded.json").read_text())
    finally:
        holder.communicate()
        eventually(lambda: not (home / "embedded.json").exists())


def bare_environment() -> dict[str, str]:
    """What a service manager gives: none of this run's variables."""
    return {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "VIRTUAL_ENV") if name in os.environ}


def fresh_database(elsewhere: dict[str, str], name: str) -> str:
    with psycopg.connect(elsewhere["database_url"], autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return name


@pytest.fixture(scope="module")
def production(elsewhere: dict[str, str], open_folder: Path) -> dict[str, str]:
    """The environment of a deployment: every service and every secret named."""
    return {
        **bare_environment(),
        "POSTGRES_HOST": elsewhere["host"],
        "POSTGRES_PORT": str(elsewhere["postgres_port"]),
        "POSTGRES_USER": elsewhere["user"],
        "POSTGRES_PASSWORD": elsewhere["password"],
        "POSTGRES_DB": fresh_database(elsewhere, "production"),
        "REDIS_URL": elsewhere["redis_url"],
        "LUMIGATOR_SECRET_KEY": new_key(),
        "LUMIGATOR_ENCRYPTION_KEYS": new_key(),
        "LUMIGATOR_HOME": str(open_folder / "production"),
        "LUMIGATOR_SWEEP_SECONDS": "0.5",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def run(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """`manage.py …` or `lumigator …`, to its end."""
    program = [str(ROOT / "manage.py")] if words[0] == "manage.py" else ["-m", "lumigator.cli"]
    return subprocess.run(
        [sys.executable, *program, *words[1:]],
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT,
    )


def rows(environment: dict[str, str], query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(
        host=environment["POSTGRES_HOST"],
        port=environment["POSTGRES_PORT"],
        user=environment["POSTGRES_USER"],
        password=environment["POSTGRES_PASSWORD"],
        dbname=environment["POSTGRES_DB"],
    ) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def migrated(production: dict[str, str]) -> dict[str, str]:
    done = run(production, "manage.py", "migrate", "-v", "0")
    assert done.returncode == 0, done.stderr
    return production


def test_named_services_are_used_and_none_is_started(migrated, s3, tmp_path):
    file = tmp_path / "mills.csv"
    file.write_bytes(CSV)
    added = run(migrated | s3.variables(), "lumigator", "datasets", "add", str(file))
    assert added.returncode == 0, added.stderr
    assert "2 documents, 1 with a reference" in added.stdout
    ((key,),) = rows(migrated, "SELECT file FROM datasets_dataset")
    assert s3.client().get_object(Bucket=s3.bucket, Key=key)["Body"].read() == CSV
    home = Path(migrated["LUMIGATOR_HOME"])
    assert not home.exists() or not list(home.iterdir()), "no server, no secret, no file of the laptop mode"


def test_the_command_line_says_that_the_store_refuses(migrated, s3, tmp_path):
    file = tmp_path / "other.csv"
    file.write_bytes(CSV + b"More.,\n")
    refused = run(migrated | wrong_secret(s3).variables(), "lumigator", "datasets", "add", str(file))
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"lumigator: the file store {s3.endpoint} (bucket {s3.bucket}) refuses our cred")
    assert "Traceback" not in refused.stderr
    assert rows(migrated, "SELECT 1 FROM datasets_dataset WHERE file_name = 'other.csv'") == []


def test_a_database_url_and_secrets_in_files_say_the_same(migrated, elsewhere, tmp_path):
    environment = {name: value for name, value in migrated.items() if not name.startswith("POSTGRES_")}
    environment["DATABASE_URL"] = f"{elsewhere['database_url'].rpartition('/')[0]}/{migrated['POSTGRES_DB']}"
    for name in ("LUMIGATOR_SECRET_KEY", "LUMIGATOR_ENCRYPTION_KEYS"):
        (tmp_path / name).write_text(f"{environment.pop(name)}\n")
        environment[f"{name}_FILE"] = str(tmp_path / name)
    done = run(environment, "manage.py", "migrate", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["LUMIGATOR_SECRET_KEY", "LUMIGATOR_ENCRYPTION_KEYS"])
def test_without_its_secrets_it_refuses_to_start(production, name):
    environment = {key: value for key, value in production.items() if key != name}
    refused = run(environment, "manage.py", "check")
    assert refused.returncode != 0
    assert refused.stderr.strip().splitlines()[-1] == (
        f"django.core.exceptions.ImproperlyConfigured: {name} is not set. Outside the laptop mode every secret comes "
        f"from the environment: set {name} (or {name}_FILE) to the output of `lumigator new-key`."
    )
    assert not (Path(production["LUMIGATOR_HOME"]) / "secret_key").exists(), "none was made up"


def crews(folder: Path) -> Path:
    file = folder / "crews.csv"
    story = "Crew {0} reached hut {1}. The path was closed. They waited {0} hours.,Crew {0} waited."
    file.write_text("\n".join(["examples,ground_truth", *(story.format(n, n % 7) for n in range(12)), ""]))
    return file


def evaluate(environment: dict[str, str], folder: Path) -> dict[str, object]:
    """A comparison of the baselines, by real worker processes; the document that it wrote."""
    words = ["evaluate", str(crews(folder)), "--metrics", "rouge", "--json", str(folder / "out.json")]
    done = run(environment, "lumigator", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "out.json").read_text())


IN_ONE_PROCESS = """
import json, sys
import django
django.setup()
from datasets_app.ingest import ingest
from evaluations import comparing, planning, steering
from evaluations.tests.engine import work_off
from lumigator.laptop import prepare
team, owner = prepare()
dataset = ingest(team=team, user=owner, name="crews", file=sys.argv[1])
wish = {"name": "Crews", "dataset": dataset, "models": [], "metrics": ["rouge"]}
wish |= {"baselines": True, "may_be_empty": True}
experiment = planning.create(team=team, user=owner, data=wish)
steering.start(experiment)
work_off()
experiment.refresh_from_db()
print(json.dumps(comparing.comparison(experiment)))
"""


def check_comparison(document: dict[str, object]) -> None:
    assert len(document["candidates"]) >= 3
    for candidate in document["candidates"]:
        assert candidate["metrics"]["rouge1"]["n"] == 12, candidate["label"]


def test_with_redis_away_an_evaluation_ends_by_polling_and_doctor_says_so(migrated, tmp_path):
    environment = migrated | {"REDIS_URL": f"redis://127.0.0.1:{closed_port()}/0"}
    check_comparison(evaluate(environment, tmp_path))
    examined = run(environment, "lumigator", "doctor")
    assert examined.returncode == 1
    assert "WRONG Redis does not answer (ConnectionError): work goes on by polling, a few seconds late." in (
        examined.stdout
    )
    assert "ok    The database answers and its migrations are applied." in examined.stdout


@pytest.mark.skipif(not shutil.which("redis-server"), reason="no redis-server on PATH")
def test_a_redis_of_this_machine_carries_the_bells(migrated, tmp_path):
    port = closed_port()
    password = "not-the-valkey-of-anybody"
    options = [
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--requirepass",
        password,
        "--save",
        "",
        "--dir",
        str(tmp_path),
    ]
    server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    try:
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        client = redis.Redis.from_url(url)
        eventually(lambda: answers(client))
        check_comparison(evaluate(migrated | {"REDIS_URL": url}, tmp_path))
        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] > 10, "dramatiq spoke to it"
    finally:
        server.terminate()
        server.wait(WAIT)


def answers(client: redis.Redis) -> bool:
    try:
        return client.ping()
    except redis.ConnectionError:
        return False


@pytest.mark.skipif(not (POSTGRES_15 / "initdb").exists(), reason=f"no PostgreSQL 15 in {POSTGRES_15}")
def test_postgresql_15_does_the_same_work(production, open_folder, monkeypatch, tmp_path):
    """The oldest that the README promises, run the way the embedded one is: by an account that is not root."""
    monkeypatch.setattr(servers, "postgres_binaries", lambda: POSTGRES_15)
    base = open_folder / "fifteen"
    base.mkdir(mode=0o755)
    server = servers.Postgres(base, servers.Remembered(base))
    try:
        server.prepare()
        server.start()
        password = server.remembered.postgres_password
        environment = production | {
            "POSTGRES_PORT": str(server.port),
            "POSTGRES_PASSWORD": password,
            "POSTGRES_DB": "lumigator",
        }
        ((version,),) = rows(environment, "SHOW server_version_num")
        assert str(version).startswith("15")
        environment["DJANGO_SETTINGS_MODULE"] = "lumigator.settings"
        done = subprocess.run(
            [sys.executable, "-c", IN_ONE_PROCESS, str(crews(tmp_path))],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=WAIT,
        )
        assert done.returncode == 0, done.stderr
        check_comparison(json.loads(done.stdout))
    finally:
        server.stop()
