"""Secrets in the environment, so that no line and no file shows them."""

import os
import re

NAME = re.compile(
    r"TOKEN|SECRET|PASS|KEY|CREDENTIAL|AUTH|BEARER|(?:^|_)PAT(?:$|_)|WEBHOOK|COOKIE|SESSION|DSN|PWD$", re.IGNORECASE
)
"""Names of variables that hold one."""
_LOGIN = re.compile(r"://([^\s/:@\"'<>]+|[^\s/:@\"'<>]*:[^\s\"'<>]+)@")
_WRITTEN = re.compile(r"(://)[^\s/:@\"'<>]*:[^\s/@\"'<>]+@")


def secrets() -> dict[str, str]:
    """Secret to the name of the variable that holds it: values by the variable's name, user and password of addresses."""
    found = {value: name for name, value in os.environ.items() if NAME.search(name) and _can_be_one(value)}
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
