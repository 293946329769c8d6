"""Secrets in the environment, so that no line and no file shows them."""

import os
import re
from urllib.parse import unquote

NAME = re.compile(
    r"TOKEN|SECRET|PASS|KEY|CREDENTIAL|AUTH|BEARER|(?:^|_)PAT(?:$|_)|WEBHOOK|COOKIE|SESSION|DSN|PWD$", re.IGNORECASE
)
"""Names of variables that hold one."""
_LOGIN = re.compile(r"://([^\s/:@\"'<>]+|[^\s/:@\"'<>]*:[^\s\"'<>]+)@")
_WRITTEN = re.compile(r"(://)[^\s/:@\"'<>]*:[^\s/@\"'<>]+@")


_LOGINS: dict[str, tuple[str, str]] = {}
"""Address of a server to user and password, for this process only."""


def without_login(name: str) -> str:
    """The name of a served model without user and password, which this process keeps in memory; other texts as they are."""
    if not name.startswith("openai:"):
        return name
    scheme, sign, rest = name.partition("://")
    authority, slash, path = rest.partition("/")
    login, at, host = authority.rpartition("@")
    if not at:
        return name
    address = f"{scheme}{sign}{host}{slash}{path}"
    user, _, password = login.partition(":")
    _LOGINS[address.removeprefix("openai:").partition("#")[0].rstrip("/")] = unquote(user), unquote(password)
    return address


def login_of(address: str) -> tuple[str, str] | None:
    """User and password that were given for an address."""
    return _LOGINS.get(address)


def secrets() -> dict[str, str]:
    """Secret to the name of the variable that holds it: values by the variable's name, user and password of addresses."""
    given = {password: "password" for _, password in _LOGINS.values() if _can_be_one(password)}
    found = given | {value: name for name, value in os.environ.items() if NAME.search(name) and _can_be_one(value)}
    for name, value in os.environ.items():
        for login in _LOGIN.findall(value):
            parts = (login, login.partition(":")[2])
            found |= {part: name for part in parts if len(part) >= 8 or ":" in part}
    return found


def _can_be_one(value: str) -> bool:
    """Whether a variable's value can be a secret: numbers, switches and paths are not."""
    return len(value) >= 8 and not value.isdecimal() and not value.startswith(("/", "~"))


def hide(text: str) -> str:
    """A text without secrets of the environment, and without user and password of addresses.

    Libraries put the address that they ask into their messages.
    """
    for secret, name in sorted(secrets().items(), key=lambda each: -len(each[0])):
        if secret in text:
            text = text.replace(secret, f"({name})")
    return _WRITTEN.sub(r"\1", text) if "://" in text else text
