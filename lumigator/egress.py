"""The one door out: an HTTP client that reaches public hosts, and private ones only where an administrator said so.

A name is resolved once, every address it has is judged, and the connection is made to the judged address, so a name
that changes its mind (DNS rebinding) gains nothing. TLS and the Host header still carry the name. No redirects, no
proxies or passwords from the environment, no answers without an end. PURE: no Django.

Sources: OWASP ASVS 5.0 1.3.6 and 15.3.2; the IANA special-purpose registries (RFC 6890) through `ipaddress`, and what
that module calls global but is not a place to send documents to.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import httpcore2
import httpx2

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Sequence[str]]
Response = httpx2.Response
"""What the client answers with."""

VARIABLE = "LUMIGATOR_EGRESS_ALLOW"

# Where clouds hand out credentials to whoever asks from inside. The link-local ranges are refused whole.
METADATA: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "169.254.0.0/16",  # AWS, Azure, Google, Oracle, DigitalOcean, Scaleway, containers' task roles
        "fe80::/10",
        "fd00:ec2::/32",  # AWS
        "fd20:ce::254/128",  # Google
        "fd00:42::42/128",  # Scaleway
        "100.100.100.200/32",  # Alibaba
        "168.63.129.16/32",  # Azure, although the address is public
        "192.0.0.192/32",  # Oracle, older
    )
)
# `is_global` is True for these (Python 3.11), and no provider lives there.
NOT_PUBLIC: tuple[Network, ...] = tuple(ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20"))
GLOBAL_UNICAST = ip_network("2000::/3")  # the only block IANA has handed out; fec0::, ::/96 and the rest fall outside
NAT64 = ip_network("64:ff9b::/96")  # RFC 6052
COMPATIBLE = ip_network("::/96")  # RFC 4291 §2.5.5.1, deprecated
TRANSLATED = ip_network("::ffff:0:0:0/96")  # RFC 2765, deprecated

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\.?")


class EgressRefused(Exception):
    """We do not go there. The text says what and the cure, and never holds an answer's body or a key."""


class ResponseTooLarge(EgressRefused):
    """The answer is longer than we are willing to read."""


@dataclass(frozen=True)
class Allowance:
    """One thing an administrator allowed: a name or a network, on one port or (None) on any."""

    host: str | Network
    port: int | None

    @classmethod
    def parse(cls, entry: str) -> Allowance:
        """Read "host", "host:port", "10.0.0.0/8", "10.0.0.0/8:8000", "::1" or "[::1]:8080".

        Raises ValueError naming the entry.
        """
        host, port = _split_port(entry.strip())
        try:
            return cls(ip_network(host), port)
        except ValueError:
            if "/" in host or not NAME.fullmatch(host):
                raise ValueError(
                    f"{entry!r} is not a host, host:port, network or network:port "
                    f"(for example 127.0.0.1:8080, models.internal:8000 or 10.1.0.0/16:8000)"
                ) from None
        return cls(host.lower().rstrip("."), port)

    def covers(self, name: str, address: Address, port: int) -> bool:
        if self.port not in (None, port):
            return False
        if isinstance(self.host, str):
            return self.host == name.lower().rstrip(".")
        return address.version == self.host.version and address in self.host


def allowed_from_environment(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The entries of LUMIGATOR_EGRESS_ALLOW, a comma-separated list. Raises ValueError naming a malformed entry."""
    text = (os.environ if environment is None else environment).get(VARIABLE, "")
    entries = tuple(entry.strip() for entry in text.split(",") if entry.strip())
    for entry in entries:
        try:
            Allowance.parse(entry)
        except ValueError as error:
            raise ValueError(f"{VARIABLE}: {error}") from None
    return entries


def client(
    *,
    allow: Sequence[str] = (),
    connect_timeout: float = 5.0,
    read_timeout: float = 60.0,
    total_timeout: float = 120.0,
    max_response_bytes: int = 4 * 1024 * 1024,
    max_connections: int = 128,
    resolve: Resolve | None = None,
) -> httpx2.Client:
    """An HTTP client for the outside, safe to share between threads; it drops into the `openai` and `mistralai` SDKs.

    `allow`: entries as `Allowance.parse` reads them. Times in seconds: to connect, between two bytes, for one whole
    exchange. A caller may ask for shorter times on a request, never for longer. `resolve(name, port)` gives the
    addresses of a name. Requests raise EgressRefused, ResponseTooLarge, or `httpx2.HTTPError`.
    """
    timeout = httpx2.Timeout(connect=connect_timeout, read=read_timeout, write=read_timeout, pool=total_timeout)
    transport = _Transport(
        backend=_Backend([Allowance.parse(entry) for entry in allow], resolve or addresses_of),
        timeout=timeout,
        total_timeout=total_timeout,
        max_response_bytes=max_response_bytes,
        max_connections=max_connections,
    )
    return httpx2.Client(transport=transport, timeout=timeout, trust_env=False, follow_redirects=False)


def check(url: str, *, allow: Sequence[str] = ()) -> None:
    """Refuse an address as far as that can be known without the network, for the form it is typed into.

    Raises EgressRefused. A name passes here; where it leads is judged when connecting.
    """
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        raise EgressRefused(f"this is not a web address; it should look like https://host/v1: {_shown(url)}") from None
    name, port = _destination(parsed)
    try:
        address = ip_address(name)
    except ValueError:
        return
    _judge(name, address, port, [Allowance.parse(entry) for entry in allow])


def addresses_of(name: str, port: int) -> list[str]:
    """What the system's resolver says, in its order. Raises `httpcore2.ConnectError` when it knows none."""
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore2.ConnectError(f"no address found for {name} ({error})") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _shown(url: str) -> str:
    """The address without what may be a password in it."""
    return repr(re.sub(r"//[^/?#]*@", "//…@", url)[:120])


def _split_port(entry: str) -> tuple[str, int | None]:
    if match := re.fullmatch(r"\[([^\]]+)\](?::(\d{1,5}))?", entry):
        host, port = match.groups()
    elif entry.count(":") == 1:
        host, port = entry.split(":")
        if not port.isdigit():
            raise ValueError(f"{entry!r} has a port that is not a number")
    else:
        host, port = entry, None
    if port is not None and not 1 <= int(port) <= 65535:
        raise ValueError(f"{entry!r} has a port outside 1–65535")
    return host, int(port) if port is not None else None


def _destination(url: httpx2.URL) -> tuple[str, int]:
    """Name and port of an address that is fit to be asked. Raises EgressRefused."""
    if url.scheme not in ("http", "https"):
        raise EgressRefused(f"{url.scheme or 'no scheme'} is not a way out; the address must begin with https://")
    if url.userinfo:
        raise EgressRefused("the address holds a user name or password; remove it and put the key in the key field")
    name = url.raw_host.decode("ascii", "replace")
    if not NAME.fullmatch(name) and not _is_ipv6(name):
        raise EgressRefused(f"{_shown(name)} is not a host name; the address should look like https://host/v1")
    port = url.port if url.port is not None else (443 if url.scheme == "https" else 80)
    if not 1 <= port <= 65535:
        raise EgressRefused(f"port {port} does not exist; use one of 1–65535")
    return name, port


def _is_ipv6(name: str) -> bool:
    try:
        return "%" not in name and ip_address(name).version == 6
    except ValueError:
        return False


def _meanings(address: Address) -> list[Address]:
    """The address and every IPv4 address hidden in it that a gateway or the kernel would unwrap."""
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:  # the kernel itself connects to the IPv4 address
        return [address.ipv4_mapped]
    hidden: list[Address] = [address]
    if address.sixtofour is not None:
        hidden.append(address.sixtofour)
    if address.teredo is not None:
        hidden.extend(address.teredo)
    compatible = address in COMPATIBLE and int(address) > 1  # not :: and ::1
    if compatible or address in NAT64 or address in TRANSLATED:
        hidden.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return hidden


def _kind(address: Address) -> str:
    """What keeps this address from being public, or ""."""
    if address.is_unspecified or address.is_multicast or address == IPv4Address("255.255.255.255"):
        return "not the address of a host"
    if any(address in network for network in METADATA if network.version == address.version):
        return "a cloud metadata or link-local address"
    if address.version == 6 and address not in GLOBAL_UNICAST and address not in NAT64:
        return "a private or reserved address"
    if address.version == 6 and address.sixtofour is not None:
        return ""  # as public as the IPv4 address in it, which is judged too; Python 3.11.2 and 3.11.7 disagree on it
    if not address.is_global or any(address in network for network in NOT_PUBLIC if network.version == address.version):
        return "a private address" if address.is_private else "a private or reserved address"
    return ""


def _judge(name: str, address: Address, port: int, allowances: Iterable[Allowance]) -> None:
    """Raises EgressRefused unless every meaning of the address is public, or allowed and never a metadata service."""
    meanings = _meanings(address)
    kinds = [(meaning, _kind(meaning)) for meaning in meanings]
    place = name if name == str(address) else f"{name} is at {address},"
    for _, kind in kinds:
        if kind in ("not the address of a host", "a cloud metadata or link-local address"):
            is_ = "is" if place == name else "which is"
            raise EgressRefused(
                f"{place} {is_} {kind}, which is never reached from here; use the provider's own address"
            )
    wrong = [(meaning, kind) for meaning, kind in kinds if kind]
    if all(any(rule.covers(name, meaning, port) for rule in allowances) for meaning, _ in wrong):
        return
    is_ = "is" if place == name else "which is"
    entry = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    raise EgressRefused(f"{place} {is_} {wrong[0][1]}; an administrator can allow it with {VARIABLE}={entry}")


_deadline: ContextVar[float] = ContextVar("deadline", default=float("inf"))
"""When the exchange of this thread must be over (monotonic seconds). httpcore does all input and output of a request
in the thread that asked, and knows only times between bytes: a body that drips one byte a second would never end."""


def _left(timeout: float | None, error: type[Exception]) -> float:
    """Seconds this one operation may take. Raises `error` when the exchange has used up its time."""
    remaining = _deadline.get() - time.monotonic()
    if remaining <= 0:
        raise error("the exchange took longer than the total time allowed")
    return min(remaining, timeout if timeout is not None else remaining)


class _Stream(httpcore2.NetworkStream):
    """A connection whose every operation minds the deadline."""

    def __init__(self, inner: httpcore2.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, timeout=_left(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # Not the inner write: its loop renews the timeout for every byte that a slow reader takes.
        sock: socket.socket = self._inner.get_extra_info("socket")
        view = memoryview(buffer)
        try:
            while view:
                sock.settimeout(_left(timeout, httpcore2.WriteTimeout))
                view = view[sock.send(view) :]
        except TimeoutError as error:
            raise httpcore2.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpcore2.WriteError(str(error)) from error

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        left = _left(timeout, httpcore2.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Backend(httpcore2.NetworkBackend):
    """Opens connections to judged addresses only."""

    def __init__(self, allowances: Sequence[Allowance], resolve: Resolve) -> None:
        self._allowances = tuple(allowances)
        self._resolve = resolve
        self._sockets = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        addresses = [ip_address(text.partition("%")[0]) for text in self._resolve(host, port)]
        if not addresses:
            raise httpcore2.ConnectError(f"no address found for {host}")
        for address in addresses:
            _judge(host, address, port, self._allowances)
        end = time.monotonic() + _left(timeout, httpcore2.ConnectTimeout)
        failure: Exception = httpcore2.ConnectTimeout(f"no answer from {host}:{port}")
        for address in addresses:
            left = end - time.monotonic()
            if left <= 0:
                break
            try:
                return _Stream(self._sockets.connect_tcp(str(address), port, left, local_address, socket_options))
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    def connect_unix_socket(self, path: str, timeout: float | None = None, socket_options: Any = None) -> Any:
        raise EgressRefused("a socket file is not a way out; the address must begin with https://")


@cache  # 36 ms to read the authorities; sessions are opened by the hundred
def _tls(cert_file: str | None, cert_dir: str | None) -> ssl.SSLContext:
    """What is trusted: the system's authorities, or those that SSL_CERT_FILE or SSL_CERT_DIR name (read within)."""
    return httpx2.create_ssl_context()


class _Transport(httpx2.HTTPTransport):
    """Judges the address, holds the times and the size of the answer."""

    def __init__(
        self,
        *,
        backend: _Backend,
        timeout: httpx2.Timeout,
        total_timeout: float,
        max_response_bytes: int,
        max_connections: int,
    ) -> None:
        # The parent's constructor takes no network backend. It is not called on purpose: should its pool ever get
        # another name, requests fail; they never go out through a pool without our backend.
        self._pool = httpcore2.ConnectionPool(
            ssl_context=_tls(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")),
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=5.0,
            network_backend=backend,
        )
        self._timeout = timeout.as_dict()
        self._total_timeout = total_timeout
        self._max_response_bytes = max_response_bytes

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        _destination(request.url)
        # A compressed answer can be a thousand times its size on the wire; we ask for none and accept none.
        request.headers["Accept-Encoding"] = "identity"
        request.extensions["timeout"] = self._shortest(request.extensions.get("timeout") or {})
        deadline = time.monotonic() + self._total_timeout
        token = _deadline.set(deadline)
        try:
            response = super().handle_request(request)
        finally:
            _deadline.reset(token)
        try:
            self._accept(response)
        except BaseException:
            response.close()
            raise
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = _Body(response.stream, deadline, self._max_response_bytes)
        return response

    def _shortest(self, asked: Mapping[str, float | None]) -> dict[str, float | None]:
        given = {name: limit for name, limit in asked.items() if limit is not None}
        return {
            name: limit if limit is None else min(limit, given.get(name, limit))
            for name, limit in self._timeout.items()
        }

    def _accept(self, response: httpx2.Response) -> None:
        if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise httpx2.DecodingError("the answer came compressed although we asked for plain text")
        length = response.headers.get("content-length", "")
        if length.isdigit() and int(length) > self._max_response_bytes:
            raise _too_large(self._max_response_bytes)


class _Body(httpx2.SyncByteStream):
    def __init__(self, inner: httpx2.SyncByteStream, deadline: float, limit: int) -> None:
        self._inner, self._ends, self._limit = inner, deadline, limit

    def __iter__(self) -> Iterator[bytes]:
        chunks, size = iter(self._inner), 0
        while True:
            token = _deadline.set(self._ends)  # around each step: a generator shares its caller's context
            try:
                chunk = next(chunks, None)
            finally:
                _deadline.reset(token)
            if chunk is None:
                return
            size += len(chunk)
            if size > self._limit:
                raise _too_large(self._limit)
            yield chunk

    def close(self) -> None:
        self._inner.close()


def _too_large(limit: int) -> ResponseTooLarge:
    return ResponseTooLarge(f"the answer is larger than {limit:,} bytes; a model's answer never is: check the address")
