"""A provider's key: encrypted at rest, bound to its address, and never given back (SECURITY S11, S14)."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet
from django.db import connection as database

from lumigator.models import AuditEvent
from models_registry import connecting
from models_registry.models import Connection

CANARY = "sk-canary-5f1b2c3d4e5f6071"


@pytest.fixture
def openai(atlas) -> Connection:
    made = Connection(team=atlas, provider="openai", name="main")
    connecting.store(made, CANARY)
    return made


@pytest.fixture
def api(as_user, alice):
    return as_user(alice, api=True)


# At rest


def test_the_key_is_encrypted_in_the_database(openai) -> None:
    with database.cursor() as cursor:
        cursor.execute("SELECT connection::text, encrypted_key FROM registry_connection AS connection")
        row, cipher = cursor.fetchone()
    assert CANARY not in row
    assert CANARY.encode() not in bytes(cipher)
    assert openai.reveal_key() == CANARY


def test_nothing_prints_the_key(openai) -> None:
    assert CANARY not in f"{openai!r} {openai} {openai.access()!r}"
    assert openai.access().key == CANARY


def test_a_short_key_gives_no_hint(atlas) -> None:
    short = Connection(team=atlas, provider="endpoint", name="lab", base_url="https://lab.example.org/v1")
    connecting.store(short, "tiny")
    assert (short.key_hint, short.reveal_key()) == ("", "tiny")


def test_a_key_outlives_the_rotation_of_the_encryption_key(openai, settings) -> None:
    old = settings.ENCRYPTION_KEYS
    new = Fernet.generate_key().decode()
    settings.ENCRYPTION_KEYS = [new, *old]
    found = Connection.objects.get(pk=openai.pk)
    assert found.reveal_key() == CANARY
    connecting.store(found, found.reveal_key())
    settings.ENCRYPTION_KEYS = [new]
    assert Connection.objects.get(pk=openai.pk).reveal_key() == CANARY


def test_without_its_encryption_key_the_stored_one_is_useless_and_the_message_names_the_cure(openai, settings) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    with pytest.raises(ValueError, match="LUMIGATOR_ENCRYPTION_KEYS") as refusal:
        Connection.objects.get(pk=openai.pk).reveal_key()
    assert CANARY not in str(refusal.value)


# Bound to its address


@pytest.mark.parametrize(
    "base_url",
    ["https://evil.example.org/v1", "http://api.example.org/v1", "https://api.example.org:8443/v1", ""],
)
def test_another_scheme_host_or_port_clears_the_key(atlas, base_url: str) -> None:
    made = Connection(team=atlas, provider="openai", name="main", base_url="https://api.example.org/v1")
    connecting.store(made, CANARY)
    made.base_url = base_url
    assert connecting.store(made) is True
    found = Connection.objects.get(pk=made.pk)
    assert (found.has_key, found.key_hint, found.access().key) == (False, "", "")


def test_another_path_of_the_same_origin_keeps_the_key(atlas) -> None:
    made = Connection(team=atlas, provider="openai", name="main", base_url="https://api.example.org/v1")
    connecting.store(made, CANARY)
    made.base_url = "https://api.example.org/v2"
    assert connecting.store(made) is False
    assert Connection.objects.get(pk=made.pk).reveal_key() == CANARY


def test_another_provider_clears_the_key(openai) -> None:
    openai.provider = "mistral"
    assert connecting.store(openai) is True
    assert not Connection.objects.get(pk=openai.pk).has_key


def test_a_key_entered_meanwhile_does_not_go_to_the_new_address(openai) -> None:
    # Given somebody who has the form open, and somebody else who enters another key
    mine, theirs = Connection.objects.get(pk=openai.pk), Connection.objects.get(pk=openai.pk)
    connecting.store(theirs, "sk-another-0123456789")
    # When the first changes the address
    mine.base_url = "https://evil.example.org/v1"
    connecting.store(mine)
    # Then neither key is sent there
    assert Connection.objects.get(pk=openai.pk).access().key == ""


def test_every_change_gives_a_new_version(openai) -> None:
    mine, theirs = Connection.objects.get(pk=openai.pk), Connection.objects.get(pk=openai.pk)
    connecting.store(theirs, "sk-another-0123456789")
    connecting.store(mine, "sk-third-0123456789")
    assert Connection.objects.get(pk=openai.pk).version == openai.version + 2


# Over the API


def test_an_administrator_makes_a_connection_and_the_key_is_not_given_back(api, atlas) -> None:
    answer = api.post("/api/v1/connections/", {"provider": "openai", "name": "main", "key": CANARY})
    assert answer.status_code == 201
    assert answer.json()["key_hint"] == CANARY[-4:]
    assert CANARY not in answer.content.decode()
    assert Connection.objects.get(team=atlas).reveal_key() == CANARY


def test_the_key_is_nowhere_in_what_members_read(api, as_user, vera, openai) -> None:
    for client in (api, as_user(vera, api=True)):
        listed = client.get("/api/v1/connections/")
        one = client.get(f"/api/v1/connections/{openai.pk}/")
        assert listed.json()["results"][0]["has_key"] is True
        for answer in (listed, one):
            assert CANARY not in answer.content.decode()
            assert "encrypted" not in answer.content.decode()


@pytest.mark.parametrize("method", ["post", "patch", "delete"])
def test_only_administrators_write(as_user, bob, vera, openai, method: str) -> None:
    address = "/api/v1/connections/" if method == "post" else f"/api/v1/connections/{openai.pk}/"
    for person in (bob, vera):
        answer = getattr(as_user(person, api=True), method)(address, {"provider": "openai", "name": "x"})
        assert answer.status_code == 403
        assert "admin" in answer.json()["detail"]
    assert Connection.objects.get().reveal_key() == CANARY


def test_another_team_cannot_tell_that_it_exists(as_user, charlie, openai) -> None:
    theirs = as_user(charlie, api=True)
    assert theirs.get("/api/v1/connections/").json()["results"] == []
    for method in ("get", "patch", "delete"):
        assert getattr(theirs, method)(f"/api/v1/connections/{openai.pk}/").status_code == 404
    assert Connection.objects.filter(pk=openai.pk).exists()


def test_changing_the_address_clears_the_key_and_says_so(api, openai) -> None:
    answer = api.patch(f"/api/v1/connections/{openai.pk}/", {"base_url": "https://evil.example.org/v1"})
    body = answer.json()
    assert (answer.status_code, body["key_cleared"], body["has_key"]) == (200, True, False)
    assert "cleared" in body["message"]
    assert Connection.objects.get(pk=openai.pk).access().key == ""


def test_a_new_key_with_the_new_address_is_kept(api, openai) -> None:
    body = {"base_url": "https://gateway.example.org/v1", "key": "sk-gateway-0123456789"}
    answer = api.patch(f"/api/v1/connections/{openai.pk}/", body).json()
    assert (answer["key_cleared"], answer["key_hint"]) == (False, "6789")


def test_an_empty_key_forgets_the_stored_one(api, openai) -> None:
    answer = api.patch(f"/api/v1/connections/{openai.pk}/", {"key": ""}).json()
    assert (answer["has_key"], answer["key_cleared"]) == (False, False)


def test_limits_change_without_touching_the_key(api, openai) -> None:
    assert api.patch(f"/api/v1/connections/{openai.pk}/", {"concurrency": 2}).json()["concurrency"] == 2
    assert Connection.objects.get(pk=openai.pk).reveal_key() == CANARY


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("provider", {"provider": "hf", "name": "x"}),
        ("base_url", {"provider": "endpoint", "name": "x"}),
        ("base_url", {"provider": "endpoint", "name": "x", "base_url": "http://10.0.0.7:8000/v1"}),
        ("base_url", {"provider": "endpoint", "name": "x", "base_url": "http://169.254.169.254/latest"}),
        ("base_url", {"provider": "endpoint", "name": "x", "base_url": "https://user:pw@host.example.org/"}),
        ("base_url", {"provider": "openai", "name": "x", "base_url": "file:///etc/passwd"}),
        ("key", {"provider": "openai", "name": "x", "key": "sk with spaces"}),
        ("name", {"provider": "openai", "name": "a/b"}),
        ("team", {"provider": "openai", "name": "x", "team": 1}),
        ("encrypted_key", {"provider": "openai", "name": "x", "encrypted_key": "x"}),
    ],
)
def test_what_cannot_be_is_refused_by_field(api, settings, field: str, body: dict) -> None:
    settings.EGRESS_ALLOW = []
    answer = api.post("/api/v1/connections/", body)
    assert answer.status_code == 400
    assert [error["loc"] for error in answer.json()["errors"]] == [field]
    assert not Connection.objects.exists()


def test_a_private_address_that_the_operator_allowed_and_a_name_without_a_dot_are_taken(api, settings) -> None:
    settings.EGRESS_ALLOW = ["10.0.0.7:8000"]
    for name, url in (("a", "http://10.0.0.7:8000/v1"), ("b", "http://vllm:8000/v1")):
        answer = api.post("/api/v1/connections/", {"provider": "endpoint", "name": name, "base_url": url})
        assert answer.status_code == 201, answer.json()


def test_the_provider_is_fixed_once_it_is_made(api, openai) -> None:
    answer = api.patch(f"/api/v1/connections/{openai.pk}/", {"provider": "mistral"})
    assert answer.status_code == 400
    assert Connection.objects.get(pk=openai.pk).provider == "openai"


def test_a_name_that_is_taken_is_refused_in_words(api, openai) -> None:
    answer = api.post("/api/v1/connections/", {"provider": "openai", "name": "main"})
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (400, "name")


def test_a_repeated_post_makes_one_connection(api) -> None:
    body = {"provider": "openai", "name": "main", "key": CANARY}
    answers = [api.post("/api/v1/connections/", body, headers={"Idempotency-Key": "once"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert Connection.objects.count() == 1


def test_the_audit_log_knows_of_every_write_and_of_no_key(api, openai) -> None:
    made = api.post("/api/v1/connections/", {"provider": "mistral", "name": "m", "key": CANARY}).json()
    api.patch(
        f"/api/v1/connections/{made['id']}/", {"key": "sk-second-0123456789", "base_url": "https://m.example.org"}
    )
    api.delete(f"/api/v1/connections/{made['id']}/")
    events = list(AuditEvent.objects.order_by("id").values_list("action", "detail"))
    assert [action for action, _ in events] == ["connection.add", "connection.change", "connection.delete"]
    assert CANARY not in str(events)
    assert "sk-second" not in str(events)


# On pages and in the admin


def test_the_pages_never_show_the_key(as_user, alice, openai) -> None:
    client = as_user(alice)
    listed = client.get("/models/connections/").content.decode()
    one = client.get(f"/models/connections/{openai.pk}/").content.decode()
    assert CANARY[-4:] in listed
    assert 'type="password"' in one
    assert CANARY not in listed + one


def test_a_refused_form_does_not_echo_the_key(as_user, alice) -> None:
    answer = as_user(alice).post("/models/connections/", {"provider": "endpoint", "name": "x", "key": CANARY})
    assert answer.status_code == 422
    assert CANARY not in answer.content.decode()


def test_the_page_changes_a_connection_keeps_its_key_and_warns_when_it_is_cleared(as_user, alice, openai) -> None:
    client = as_user(alice)
    fields = {"name": "main", "concurrency": 4, "connect_timeout": 5, "read_timeout": 60, "enabled": "on"}
    assert client.post(f"/models/connections/{openai.pk}/", fields).status_code == 302
    found = Connection.objects.get(pk=openai.pk)
    assert (found.concurrency, found.reveal_key()) == (4, CANARY)
    answer = client.post(
        f"/models/connections/{openai.pk}/", {**fields, "base_url": "https://evil.example.org/v1"}, follow=True
    )
    assert "was cleared" in answer.content.decode()
    assert not Connection.objects.get(pk=openai.pk).has_key


def test_the_page_forgets_a_key_and_deletes_a_connection(as_user, alice, openai) -> None:
    client, address = as_user(alice), f"/models/connections/{openai.pk}/"
    fields = {"name": "main", "concurrency": 4, "connect_timeout": 5, "read_timeout": 60, "forget_key": "on"}
    client.post(address, fields)
    found = Connection.objects.get(pk=openai.pk)
    assert (found.has_key, found.enabled) == (False, False)
    client.post(address, {"action": "delete"})
    assert not Connection.objects.exists()


@pytest.mark.parametrize("address", ["/models/connections/", "/models/connections/1/"])
def test_connections_are_pages_for_administrators(as_user, bob, vera, address: str) -> None:
    assert {as_user(person).get(address).status_code for person in (bob, vera)} == {403}


def test_another_teams_connection_has_no_page(as_user, charlie, openai) -> None:
    assert as_user(charlie).get(f"/models/connections/{openai.pk}/").status_code == 404


@pytest.fixture
def superuser(alice):
    alice.is_staff = alice.is_superuser = True
    alice.save()
    return alice


def admin_fields(connection: Connection, **changes) -> dict:
    fields = {"name": connection.name, "base_url": connection.base_url, "concurrency": 8, "enabled": "on"}
    return {**fields, "connect_timeout": 5, "read_timeout": 60, **changes}


def test_the_admin_shows_no_key_and_no_ciphertext(as_user, superuser, openai) -> None:
    client = as_user(superuser)
    cipher = bytes(openai.encrypted_key).decode()
    for address in ("/admin/registry/connection/", f"/admin/registry/connection/{openai.pk}/change/"):
        html = client.get(address).content.decode()
        assert CANARY[-4:] in html
        assert CANARY not in html
        assert cipher[:40] not in html


def test_the_admin_sets_keeps_and_clears_the_key(as_user, superuser, openai) -> None:
    client, address = as_user(superuser), f"/admin/registry/connection/{openai.pk}/change/"
    assert client.post(address, admin_fields(openai, concurrency=3)).status_code == 302
    assert Connection.objects.get(pk=openai.pk).reveal_key() == CANARY
    client.post(address, admin_fields(openai, key="sk-second-0123456789"))
    assert Connection.objects.get(pk=openai.pk).reveal_key() == "sk-second-0123456789"
    client.post(address, admin_fields(openai, base_url="https://evil.example.org/v1"))
    found = Connection.objects.get(pk=openai.pk)
    assert (found.base_url, found.has_key) == ("https://evil.example.org/v1", False)


def test_the_admin_adds_a_connection_to_a_host_without_a_dot(as_user, superuser, atlas) -> None:
    fields = {"team": atlas.pk, "provider": "endpoint", "name": "lab", "base_url": "http://vllm:8000/v1"}
    more = {"key": CANARY, "concurrency": 8, "connect_timeout": 5, "read_timeout": 60, "enabled": "on"}
    answer = as_user(superuser).post("/admin/registry/connection/add/", {**fields, **more})
    assert answer.status_code == 302, answer.context["errors"]
    assert Connection.objects.get(name="lab").reveal_key() == CANARY


def test_staff_who_do_not_administer_the_team_may_not_change_its_connections(as_user, bob, openai) -> None:
    from django.contrib.auth.models import Permission

    bob.is_staff = True
    bob.save()
    bob.user_permissions.set(Permission.objects.filter(content_type__app_label="registry"))
    client = as_user(bob)
    answer = client.post(f"/admin/registry/connection/{openai.pk}/change/", admin_fields(openai, key="sk-x-0123456789"))
    assert answer.status_code == 403
    assert Connection.objects.get(pk=openai.pk).reveal_key() == CANARY
