"""Egress goes to public hosts, to private ones only where allowed, and never to a metadata service."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumigator import egress
from lumigator.egress import Allowance, EgressRefused, ResponseTooLarge
from models_registry.testing_api import Canned, TestingApi, serve

NAMES = {
    "public.test": ["93.184.215.14"],
    "public6.test": ["2606:2800:21f:cb07:6820:80da:af6b:8b2c"],
    "private.test": ["10.1.2.3"],
    "mixed.test": ["93.184.215.14", "127.0.0.1"],
    "metadata.test": ["169.254.169.254"],
    "mapped.test": ["::ffff:10.0.0.1"],
    "nowhere.test": [],
}


def by_name(name: str, port: int) -> list[str]:
    """The names above; what is spelled as an address goes through the real resolver, which knows odd spellings."""
    return NAMES[name] if name in NAMES else egress.addresses_of(name, port)


@pytest.fixture
def server() -> Iterator[TestingApi]:
    with serve() as running:
        yield running


REFUSED = """
http://127.0.0.1/                 http://127.0.0.1:8080/v1          http://127.1/                   http://127.0.1/
http://0x7f.1/                    http://0x7f000001/                http://2130706433/              http://0177.1/
http://017700000001/              http://localhost/                 http://LOCALHOST/               http://0/
http://0.0.0.0/                   http://[::]/                      http://[::1]/                   http://[::1]:8080/
http://10.0.0.1/                  http://10.255.255.255/            http://172.16.0.1/              http://172.31.255.1/
http://192.168.1.1/               http://100.64.0.1/                http://100.127.255.254/         http://192.0.0.8/
http://192.0.2.1/                 http://198.51.100.7/              http://203.0.113.9/             http://198.18.0.1/
http://192.88.99.1/               http://224.0.0.1/                 http://239.255.255.250/         http://240.0.0.1/
http://255.255.255.255/           http://169.254.0.1/               http://169.254.169.254/         http://169.254.170.2/
http://168.63.129.16/             http://100.100.100.200/           http://192.0.0.192/             http://2852039166/
http://[fd00:ec2::254]/           http://[fd20:ce::254]/            http://[fd00:42::42]/           http://[fd12:3456::1]/
http://[fc00::1]/                 http://[fe80::1]/                 http://[fec0::1]/               http://[ff02::1]/
http://[::ffff:127.0.0.1]/        http://[::ffff:7f00:1]/           http://[::ffff:a9fe:a9fe]/      http://[::127.0.0.1]/
http://[::ffff:0:127.0.0.1]/      http://[64:ff9b::7f00:1]/         http://[64:ff9b::a9fe:a9fe]/    http://[64:ff9b:1::a00:1]/
http://[2002:7f00:1::]/           http://[2002:a00:1::1]/           http://[2001:0:7f00:1::1]/      http://[2001:db8::1]/
http://[3fff::1]/                 http://[5f00::1]/                 http://[100::1]/                http://[fe80::1%25eth0]/
http://private.test/              http://mixed.test/                http://metadata.test/           http://mapped.test/
ftp://public.test/                file:///etc/passwd                gopher://public.test/           unix:///run/x.sock
http://user:secret@public.test/   http://user@public.test/          http://127.0.0.1\\@public.test/ http://pub%6cic.test/
http://public.test:0/             http://public.test:99999/         http:///path
"""
REFUSED_URLS = [*REFUSED.split(), "http://a b/"]


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_these_addresses_are_refused(url: str) -> None:
    with egress.client(resolve=by_name, connect_timeout=0.2) as http, pytest.raises(EgressRefused) as refused:
        http.get(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["http://①②⑦.⓪.⓪.①/", "http://0177.0.0.1/", "http://[::1", "http://exa\nmple.test/", "http://exam ple.test:x/"],
)
def test_what_is_no_address_is_refused_in_words(url: str) -> None:
    with pytest.raises(EgressRefused, match="address"):
        egress.check(url)


@pytest.mark.parametrize(
    "text", ["93.184.215.14", "8.8.8.8", "2606:2800:21f::1", "64:ff9b::808:808", "2002:808:808::1", "::ffff:8.8.8.8"]
)
def test_public_addresses_pass(text: str) -> None:
    egress.check(f"https://[{text}]/" if ":" in text else f"https://{text}/")


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_an_ipv4_address_is_judged_alike_in_all_its_ipv6_disguises(number: int) -> None:
    plain = ip_address(number)

    def passes(text: str) -> bool:
        try:
            egress.check(f"http://[{text}]/" if ":" in text else f"http://{text}/")
        except EgressRefused:
            return False
        return True

    low, high = number & 0xFFFF, number >> 16
    expected = passes(str(plain))
    assert passes(f"::ffff:{plain}") == expected
    assert passes(f"64:ff9b::{plain}") == expected
    assert passes(f"2002:{high:x}:{low:x}::1") == expected
    assert not passes(f"::{plain}")
    if plain.is_private or plain.is_multicast:
        assert not expected


def test_a_refusal_says_what_and_the_cure() -> None:
    with pytest.raises(EgressRefused) as refused:
        egress.check("http://127.0.0.1:8080/v1")
    cure = "an administrator can allow it with LUMIGATOR_EGRESS_ALLOW=127.0.0.1:8080"
    assert str(refused.value) == f"127.0.0.1 is a private address; {cure}"
    with egress.client(resolve=by_name) as http, pytest.raises(EgressRefused) as refused:
        http.get("http://private.test:8000/")
    assert "private.test is at 10.1.2.3" in str(refused.value)
    assert str(refused.value).endswith("LUMIGATOR_EGRESS_ALLOW=private.test:8000")


@pytest.mark.parametrize("entry", ["{ip}:{port}", "{ip}", "127.0.0.0/8:{port}", "127.0.0.0/8", "model.test:{port}"])
def test_an_allowed_private_host_is_reached_under_its_name(server: TestingApi, entry: str) -> None:
    allow = [entry.format(ip="127.0.0.1", port=server.port)]
    with egress.client(allow=allow, resolve=lambda name, port: ["127.0.0.1"]) as http:
        answer = http.get(f"http://model.test:{server.port}/v1/models")
    assert answer.status_code == 200
    assert server.calls[0].headers["host"] == f"model.test:{server.port}"


@pytest.mark.parametrize("entry", ["127.0.0.1:1", "127.0.0.2", "10.0.0.0/8", "other.test", "[::1]"])
def test_what_was_allowed_for_another_host_or_port_helps_nobody(server: TestingApi, entry: str) -> None:
    with egress.client(allow=[entry]) as http, pytest.raises(EgressRefused):
        http.get(f"{server.origin}/v1/models")
    assert server.calls == []


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254/", "http://[fd00:ec2::254]/", "http://100.100.100.200/", "http://[64:ff9b::a9fe:a9fe]/"],
)
def test_a_metadata_service_cannot_be_allowed(url: str) -> None:
    host = httpx2.URL(url).host
    everything = ["0.0.0.0/0", "::/0", host, f"[{host}]:80" if ":" in host else f"{host}:80"]
    with pytest.raises(EgressRefused, match="metadata"):
        egress.check(url, allow=everything)
    with egress.client(allow=everything) as http, pytest.raises(EgressRefused, match="metadata"):
        http.get(url)


def test_a_name_that_changes_its_mind_gains_nothing(server: TestingApi) -> None:
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])
    asked: list[str] = []

    def rebinding(name: str, port: int) -> list[str]:
        asked.append(name)
        return next(answers)

    with egress.client(allow=[f"127.0.0.1:{server.port}"], resolve=rebinding) as http:
        url = f"http://rebind.test:{server.port}/v1/models"
        assert http.get(url, headers={"Connection": "close"}).status_code == 200
        assert len(asked) == 1, "one look-up for one connection: what was judged is what was connected to"
        with pytest.raises(EgressRefused):
            http.get(url)


def test_a_redirect_is_not_followed(server: TestingApi) -> None:
    server.answer(Canned(302, "", {"Location": f"{server.origin}/v1/models"}))
    with egress.client(allow=[server.allow]) as http:
        assert http.get(f"{server.origin}/v1/models").status_code == 302
    assert len(server.calls) == 1


def test_a_followed_redirect_would_be_judged_too(server: TestingApi) -> None:
    server.answer(Canned(302, "", {"Location": "http://169.254.169.254/"}))
    with egress.client(allow=[server.allow]) as http, pytest.raises(EgressRefused):
        http.get(f"{server.origin}/v1/models", follow_redirects=True)


def test_proxies_and_passwords_of_the_environment_are_not_used(
    server: TestingApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with egress.client(allow=[server.allow]) as http:
        assert http.get(f"{server.origin}/v1/models").status_code == 200
    assert "authorization" not in server.calls[0].headers


@pytest.mark.parametrize("headers", [{}, {"Content-Length": None, "Connection": "close"}])
def test_an_answer_that_is_too_large_is_not_read(server: TestingApi, headers: dict[str, str | None]) -> None:
    server.answer(Canned(body=b"x" * 5000, headers=headers))
    with egress.client(allow=[server.allow], max_response_bytes=4000) as http, pytest.raises(ResponseTooLarge):
        http.get(f"{server.origin}/v1/models")


def test_an_endless_chunked_answer_is_cut_off(server: TestingApi) -> None:
    chunks = b"".join(b"3e8\r\n" + b"x" * 1000 + b"\r\n" for _ in range(50))
    server.answer(Canned(body=chunks, headers={"Transfer-Encoding": "chunked", "Content-Length": None}))
    with egress.client(allow=[server.allow], max_response_bytes=4000) as http, pytest.raises(ResponseTooLarge):
        http.get(f"{server.origin}/v1/models")


def test_a_compressed_answer_is_not_unpacked(server: TestingApi) -> None:
    server.answer(Canned(body=b"bomb", headers={"Content-Encoding": "gzip"}))
    with egress.client(allow=[server.allow]) as http, pytest.raises(httpx2.DecodingError):
        http.get(f"{server.origin}/v1/models")
    assert server.calls[0].headers["accept-encoding"] == "identity"


def test_a_body_that_drips_is_cut_off_at_the_total_time(server: TestingApi) -> None:
    server.answer(Canned(body=b"x" * 1000, drip=0.02))
    began = time.monotonic()
    with egress.client(allow=[server.allow], total_timeout=0.3) as http, pytest.raises(httpx2.ReadTimeout):
        http.get(f"{server.origin}/v1/models")
    assert time.monotonic() - began < 2


def test_headers_that_drip_are_cut_off_at_the_total_time() -> None:
    with raw_server(drip_headers) as port:
        began = time.monotonic()
        allow = [f"127.0.0.1:{port}"]
        with egress.client(allow=allow, total_timeout=0.3) as http, pytest.raises(httpx2.ReadTimeout):
            http.get(f"http://127.0.0.1:{port}/")
        assert time.monotonic() - began < 2


def test_a_server_that_does_not_read_is_cut_off_at_the_total_time() -> None:
    with raw_server(lambda connection, stop: stop.wait(5)) as port:
        allow = [f"127.0.0.1:{port}"]
        with egress.client(allow=allow, total_timeout=0.3) as http, pytest.raises(httpx2.TimeoutException):
            http.post(f"http://127.0.0.1:{port}/", content=b"x" * 20_000_000)


def test_a_caller_may_shorten_a_time_but_not_lengthen_it(server: TestingApi) -> None:
    with egress.client(allow=[server.allow], read_timeout=0.2) as http:
        server.answer(Canned(wait=5))
        with pytest.raises(httpx2.ReadTimeout):
            http.get(f"{server.origin}/v1/models", timeout=300)
    with egress.client(allow=[server.allow], read_timeout=300) as http:
        server.answer(Canned(wait=5))
        with pytest.raises(httpx2.ReadTimeout):
            http.get(f"{server.origin}/v1/models", timeout=0.2)


def test_a_name_without_address_is_a_connection_error_not_a_refusal() -> None:
    with egress.client(resolve=by_name) as http, pytest.raises(httpx2.ConnectError, match="nowhere"):
        http.get("http://nowhere.test/")


def test_the_next_address_is_tried_when_the_first_does_not_answer(server: TestingApi) -> None:
    with egress.client(allow=["127.0.0.0/8"], resolve=lambda name, port: ["127.0.0.9", "127.0.0.1"]) as http:
        assert http.get(f"http://two.test:{server.port}/v1/models").status_code == 200


def test_tls_is_for_the_name_though_the_connection_goes_to_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(tmp_path, "model.test")
    asked_for: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda sock, name, ctx: asked_for.append(name)

    def answer(connection: socket.socket, stop: threading.Event) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(65536)
            secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    with raw_server(answer) as port:
        options = {"allow": [f"127.0.0.1:{port}"], "resolve": lambda name, port: ["127.0.0.1"]}
        with egress.client(**options) as http, pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            http.get(f"https://model.test:{port}/")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with egress.client(**options) as http:
            assert http.get(f"https://model.test:{port}/").text == "hi"
            with pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                http.get(f"https://other.test:{port}/")
    assert asked_for == ["model.test", "model.test", "other.test"]


def test_the_environment_lists_what_is_allowed() -> None:
    text = " 127.0.0.1:8080, models.internal ,10.1.0.0/16:8000,[::1]:8080,fd12::/16, "
    entries = egress.allowed_from_environment({egress.VARIABLE: text})
    assert entries == ("127.0.0.1:8080", "models.internal", "10.1.0.0/16:8000", "[::1]:8080", "fd12::/16")
    assert egress.allowed_from_environment({}) == ()
    egress.check("http://[::1]:8080/", allow=entries)
    egress.check("http://[fd12::7]:9/", allow=entries)


@pytest.mark.parametrize(
    "entry", ["10.0.0.1/8", "host:http", "host:0", "host:70000", "http://host", "*", "a/b", "[::1"]
)
def test_a_malformed_entry_is_named(entry: str) -> None:
    with pytest.raises(ValueError, match="LUMIGATOR_EGRESS_ALLOW") as wrong:
        egress.allowed_from_environment({egress.VARIABLE: f"good.test,{entry}"})
    assert entry in str(wrong.value)


def test_names_are_compared_without_regard_to_case_or_a_final_dot() -> None:
    rule = Allowance.parse("Models.Internal:8000")
    assert rule.covers("models.internal.", ip_address("10.0.0.1"), 8000)
    assert not rule.covers("models.internal", ip_address("10.0.0.1"), 8001)
    assert not rule.covers("evil-models.internal", ip_address("10.0.0.1"), 8000)


def drip_headers(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not stop.wait(0.02):
        connection.sendall(b"a")


@contextmanager
def raw_server(behave: Callable[[socket.socket, threading.Event], object]) -> Iterator[int]:
    """A bare socket server, for what no HTTP server would do. Yields its port."""
    stop = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    behave(connection, stop)
                except OSError:
                    continue  # the client hung up, as it should

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(timeout=5)


def self_signed(folder: Path, name: str) -> Path:
    """A certificate and its key in one PEM file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    path = folder / "certificate.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, plain)
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
