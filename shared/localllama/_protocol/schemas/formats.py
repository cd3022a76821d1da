r"""String formats: what the grammar writes, and what the check accepts.

Each pattern describes a part of the valid strings that is wide enough for use: dates of the years 1000 to 9999 with their
real days, `http(s)` addresses, e-mail addresses without quotes or comments. Every string of a pattern passes the check.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
import uuid
from collections.abc import Callable
from typing import Any

__all__ = ["CHECKED_FORMATS", "FORMAT_PATTERNS", "is_format"]

_DATE = (
    "([1-9][0-9]{3}-("
    "(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
    "|([1-9][0-9](0[48]|[2468][048]|[13579][26])|([2468][048]|[13579][26])00)-02-29)"
)
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
_TIME = rf"{_CLOCK}(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_LABEL = "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?"
_HOST = rf"({_LABEL}\.){{1,4}}[a-z]{{2,12}}"
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_HEX = "[0-9a-f]{1,4}"
_EMAIL = rf"[A-Za-z0-9_+-]{{1,32}}(\.[A-Za-z0-9_+-]{{1,16}}){{0,3}}@{_HOST}"
_PATH = r"(/[A-Za-z0-9._~-]{0,60}){0,12}"
_URI = rf"https?://{_HOST}(:[1-9][0-9]{{1,3}})?{_PATH}(\?[A-Za-z0-9._~=&+-]{{1,200}})?(#[A-Za-z0-9._~-]{{1,60}})?"
_DURATION = (
    "P([0-9]{1,3}W|[0-9]{1,4}D(T[0-9]{1,2}H([0-9]{1,2}M([0-9]{1,2}S)?)?)?"
    "|T([0-9]{1,4}H([0-9]{1,2}M([0-9]{1,2}S)?)?|[0-9]{1,5}M([0-9]{1,2}S)?|[0-9]{1,7}S))"
)
_LONGEST_HOST_NAME = 253  # RFC 1035

FORMAT_PATTERNS: dict[str, str] = {
    name: f"^({pattern})$"
    for name, pattern in {
        "date": _DATE,
        "time": _TIME,
        "date-time": f"{_DATE}T{_TIME}",
        "duration": _DURATION,
        "email": _EMAIL,
        "idn-email": _EMAIL,
        "hostname": _HOST,
        "idn-hostname": _HOST,
        "ipv4": rf"({_BYTE}\.){{3}}{_BYTE}",
        "ipv6": f"({_HEX}:){{7}}{_HEX}|{_HEX}(:{_HEX}){{0,5}}::({_HEX})?|::({_HEX})?",
        "uri": _URI,
        "uri-reference": rf"{_URI}|/[A-Za-z0-9._~-]{{0,60}}{_PATH}",
        "iri": _URI,
        "iri-reference": _URI,
        "json-pointer": r"(/[A-Za-z0-9_ -]{0,40}){0,12}",
        "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
        # What pydantic calls its network types.
        "ipv4interface": rf"({_BYTE}\.){{3}}{_BYTE}/(3[0-2]|[12]?[0-9])",
        "ipv4network": rf"{_BYTE}\.{_BYTE}\.{_BYTE}\.0/24|{_BYTE}\.{_BYTE}\.0\.0/16|{_BYTE}\.0\.0\.0/8",
        "ipv6interface": f"({_HEX}:){{7}}{_HEX}/(12[0-8]|1[01][0-9]|[1-9]?[0-9])",
        "ipv6network": f"({_HEX}:){{7}}{_HEX}/128|({_HEX}:){{1,4}}:/64",
        "ipvanyaddress": rf"({_BYTE}\.){{3}}{_BYTE}",
        "ipvanyinterface": rf"({_BYTE}\.){{3}}{_BYTE}/(3[0-2]|[12]?[0-9])",
        "ipvanynetwork": rf"{_BYTE}\.{_BYTE}\.{_BYTE}\.0/24",
    }.items()
}
FORMAT_PATTERNS |= {f"uuid{n}": FORMAT_PATTERNS["uuid"].replace("[1-8]", str(n)) for n in range(1, 9)}


def _is_date(text: str) -> bool:
    return bool(re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII)) and bool(dt.date.fromisoformat(text))


def _is_time(text: str) -> bool:
    # RFC 3339: an offset is part of it, and a leap second may be.
    hour, minute = "(?:[01][0-9]|2[0-3])", "[0-5][0-9]"
    clock = rf"{hour}:{minute}:(?:{minute}|60)(?:\.[0-9]+)?"
    return bool(re.fullmatch(rf"{clock}(?:[Zz]|[+-]{hour}:{minute})", text))


def _is_date_time(text: str) -> bool:
    date, time = text[:10], text[10:]
    return time[:1] in {"T", "t"} and _is_date(date) and _is_time(time[1:])


def _is_email(text: str) -> bool:
    local, at, domain = text.rpartition("@")
    is_local = bool(re.fullmatch(r'[^\s"(),:;<>@\[\\\]]+', local)) and ".." not in local and local.strip(".") == local
    return (
        bool(at)
        and (is_local or bool(re.fullmatch(r'"[^"\r\n]*"', local)))
        and (_is_hostname(domain) or bool(re.fullmatch(r"\[.+\]", domain)))
    )


def _is_hostname(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_HOST_NAME and all(
        re.fullmatch(r"(?!-)[^\W_](?:[\w-]{0,61}[^\W_])?", label) for label in text.split(".")
    )


def _is_uri(text: str) -> bool:
    return _is_uri_reference(text) and bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text))


def _is_uri_reference(text: str) -> bool:
    return bool(re.fullmatch(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*", text))


def _is_iri(text: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]*", text))


def _is_duration(text: str) -> bool:
    time = r"T(?:\d+H(?:\d+M(?:\d+(?:\.\d+)?S)?)?|\d+M(?:\d+(?:\.\d+)?S)?|\d+(?:\.\d+)?S)"
    day = r"(?:\d+Y(?:\d+M(?:\d+D)?)?|\d+M(?:\d+D)?|\d+D)"
    return bool(re.fullmatch(rf"[+-]?P(?:\d+W|{day}(?:{time})?|{time})", text, re.ASCII))


def _is_uuid(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text)) and bool(uuid.UUID(text))


def _parsed_by(parse: Callable[[str], Any]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        parse(text)
        return True

    return check


_CHECKS: dict[str, Callable[[str], bool]] = {
    "date": _is_date,
    "time": _is_time,
    "date-time": _is_date_time,
    "duration": _is_duration,
    "email": _is_email,
    "idn-email": _is_email,
    "hostname": _is_hostname,
    "idn-hostname": _is_hostname,
    "ipv4": _parsed_by(ipaddress.IPv4Address),
    "ipv6": lambda text: "%" not in text and bool(ipaddress.IPv6Address(text) is not None),
    "uri": _is_uri,
    "uri-reference": _is_uri_reference,
    "iri": _is_iri,
    "json-pointer": lambda text: bool(re.fullmatch(r"(?:/(?:[^~/]|~[01])*)*", text)),
    "uuid": _is_uuid,
    "regex": _parsed_by(re.compile),
    "ipv4interface": _parsed_by(ipaddress.IPv4Interface),
    "ipv4network": _parsed_by(ipaddress.IPv4Network),
    "ipv6interface": _parsed_by(ipaddress.IPv6Interface),
    "ipv6network": _parsed_by(ipaddress.IPv6Network),
    "ipvanyaddress": _parsed_by(ipaddress.ip_address),
    "ipvanyinterface": _parsed_by(ipaddress.ip_interface),
    "ipvanynetwork": _parsed_by(ipaddress.ip_network),
}
_CHECKS |= {f"uuid{n}": _is_uuid for n in range(1, 9)}

CHECKED_FORMATS = frozenset(_CHECKS)
"""The formats that `is_format` knows; any other is an annotation."""


def is_format(text: str, name: str) -> bool:
    """Whether a string has a format; true for formats that are not known."""
    check = _CHECKS.get(name)
    if check is None:
        return True
    try:
        return check(text)
    except (ValueError, re.error):
        return False
