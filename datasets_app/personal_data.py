"""Personal data finds what may lead to a person in a text, and shows it masked. Nothing unmasked leaves this module.

Pure. Possible, not proven: an order number can look like a telephone number. What has a checksum must pass it: IBAN
(ISO 13616, modulo 97) and card numbers (ISO/IEC 7812, Luhn). Names and addresses of houses are not looked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import AddressValueError, IPv6Address

KINDS = {
    "email": "e-mail address",
    "phone": "telephone number",
    "iban": "bank account (IBAN)",
    "card": "payment card number",
    "ip": "IP address",
}

LEAST_DIGITS = 7  # of a telephone number
SEPARATORS = b" .-()/+"
DIGITS, HEX_DIGITS = b"0123456789", b"0123456789abcdefABCDEF"
SHAPE = bytes(48 if byte in DIGITS else byte if byte in b".:" else 120 for byte in range(256))
"""Digits become 0, everything but full stops and colons becomes x: with some characters left out besides, a plain
search rules out most texts, 20 times faster than the patterns below."""

LOCAL_PART = re.compile(r"[\w.%+\-]{1,64}\Z")
DOMAIN = re.compile(r"(?:[\w\-]{1,63}\.){1,8}[^\W\d_]{2,24}")
PHONE = re.compile(
    r"(?<![\w.,/+\-])(?:"
    r"\+\d{1,3}(?:[ .\-/\u00a0]?\(?\d{1,4}+\)?){2,6}+"  # +49 30 1234567
    r"|\(\d{2,5}\)[ \u00a0]?\d{2,5}+(?:[ .\-/]?\d{2,5}+){0,3}+"  # (030) 123 4567
    r"|0\d{2,4}[ /\-]\d{2,5}+(?:[ \-]?\d{2,5}+){0,3}+"  # 030 1234567
    r"|0\d(?:[ .\-]\d{2}){4}"  # 01 23 45 67 89
    r"|(?:1[ .\-])?\d{3}[ .\-]\d{3}[ .\-]\d{4}"  # 212-555-0142
    r")(?![\w%]|[.,]\d)"
)
CARD = re.compile(r"(?<![\w.,+\-])[2-6](?:[ \-]?\d){12,18}+(?!\w|[.,]\d)")
IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ \u00a0]?[A-Z0-9]){11,30}+")
IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)")
IPV6 = re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}+[0-9a-fA-F]{0,4}(?![\w:.])")
IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AT": 20, "BE": 16, "BG": 22, "CH": 21, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "EE": 20,
    "ES": 24, "FI": 18, "FR": 27, "GB": 22, "GE": 22, "GR": 27, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IS": 26,
    "IT": 27, "KW": 30, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MT": 31, "NL": 18, "NO": 15, "PL": 28,
    "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TN": 24, "TR": 26,
    "UA": 29,
}  # fmt: skip


def found_in(text: str) -> dict[str, str]:
    """{kind: the first one, masked} for every kind of KINDS that `text` may hold; {} when there is none."""
    found: dict[str, str] = {}
    if "@" in text and (masked := _email(text)):
        found["email"] = masked
    plain = text.encode("ascii", "ignore")
    may_hold_ip = b"..." in plain.translate(SHAPE, DIGITS) or b"::" in plain.translate(SHAPE, HEX_DIGITS)
    if may_hold_ip and (masked := _ip(text)):
        found["ip"] = masked
    if b"0" * LEAST_DIGITS in plain.translate(SHAPE, SEPARATORS):
        found.update(_numbers(text))
    return found


def _email(text: str) -> str:
    place = text.find("@")
    while place >= 0:
        local = LOCAL_PART.search(text, max(0, place - 64), place)
        domain = DOMAIN.match(text, place + 1)
        if local and domain:
            return f"{local[0][0]}…@{domain[0][0]}…"
        place = text.find("@", place + 1)
    return ""


def _ip(text: str) -> str:
    for found in IPV4.finditer(text):
        first, *others = found[0].split(".")
        if first != "0" and all(int(octet) <= 255 for octet in (first, *others)):
            return f"{first}.…"
    for found in IPV6.finditer(text):
        if _is_ipv6(found[0]):
            return f"{found[0].partition(':')[0]}:…"
    return ""


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return len(text) > 4  # "::1" is every machine, and "a::b" may be code


def _numbers(text: str) -> Iterator[tuple[str, str]]:
    """(kind, masked) of accounts, cards and telephones; what was one of the first two is not read as the third."""
    for kind, pattern, checked, mask in CHECKED:
        firsts = (found[0][:size] for found in pattern.finditer(text) if (size := checked(found[0])))
        if first := next(firsts, ""):
            yield kind, mask(first)
            text = pattern.sub(partial(_crossed_out, checked), text)
    for found in PHONE.finditer(text):
        digits = re.sub(r"\D", "", found[0])
        if LEAST_DIGITS <= len(digits) <= 15 and len(set(digits)) > 2:
            yield "phone", f"{found[0].lstrip('(')[:2]}…{digits[-2:]}"
            return


def _crossed_out(checked: Callable[[str], int], found: re.Match[str]) -> str:
    size = checked(found[0])
    return "x" * size + found[0][size:]


def iban_length(text: str) -> int:
    """How many characters at the beginning of `text`, blanks included, are an IBAN with a right checksum; 0: none."""
    most = IBAN_LENGTHS.get(text[:2], 0)
    places = [place for place, character in enumerate(text) if character.isalnum()][:most]
    if not most or len(places) < most:
        return 0
    taken, size = "".join(text[place] for place in places), places[-1] + 1
    turned = taken[4:] + taken[:4]
    return size if int("".join(str(int(character, 36)) for character in turned)) % 97 == 1 else 0


def card_length(text: str) -> int:
    """The length of `text` when its digits are 13 to 19 and pass the Luhn check; else 0."""
    digits = [int(character) for character in text if character.isdigit()]
    total = sum(digits[-1::-2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return len(text) if 13 <= len(digits) <= 19 and total % 10 == 0 and len(set(digits)) > 1 else 0


def _masked_account(text: str) -> str:
    return f"{text[:2]}…{text[-2:].strip()}"


def _masked_card(text: str) -> str:
    return f"…{text[-2:]}"


CHECKED: tuple[tuple[str, re.Pattern[str], Callable[[str], int], Callable[[str], str]], ...] = (
    ("iban", IBAN, iban_length, _masked_account),
    ("card", CARD, card_length, _masked_card),
)
