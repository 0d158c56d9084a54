"""The values of [notify] that have a form of their own: addresses, hours. Pure.

Serves the check of the configuration and ds01d-notify alike. Every refusal is a ValueError whose
text names what would be right, and never the value of an address, which may be a secret.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

from ds01d import config_text

CREDENTIAL: Final = "credential"
"""In the place of the webhook's address: it is in the credential `webhook` of the unit."""
_MAX_ADDRESS: Final = 2048
_HOURS: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")
_DOMAIN: Final = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
    r"(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_MINUTES_PER_DAY: Final = 24 * 60


class WebAddress(NamedTuple):
    """Where a webhook is: `target` is path and query."""

    is_tls: bool
    host: str
    port: int
    target: str


class MailRelay(NamedTuple):
    """A mail server that takes mail from this host."""

    host: str
    port: int


class QuietHours(NamedTuple):
    """From `begin` to `end`, in minutes after midnight of local time; over midnight too."""

    begin: int
    end: int

    def find_left_minutes(self, minute: int) -> int:
        """How many minutes they still last; 0 outside of them."""
        length = (self.end - self.begin) % _MINUTES_PER_DAY
        since = (minute - self.begin) % _MINUTES_PER_DAY
        return max(0, length - since)


def parse_web_address(value: str) -> WebAddress:
    """An https:// address; http:// only to this host."""
    expected = 'write an address like "https://hooks.example.org/services/…"'
    if len(value) > _MAX_ADDRESS or not value.isascii() or re.search(r"[\x00-\x20\x7f\\]", value):
        raise ValueError(
            f"the address is too long, or has blanks or other special characters: {expected}"
        )
    from urllib.parse import urlsplit  # noqa: PLC0415 - each command reads the configuration

    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(f"its host or port is invalid: {expected}") from None
    if parts.scheme not in {"https", "http"} or not host or port == 0:
        raise ValueError(f"not an address of the web: {expected}")
    if "@" in parts.netloc:
        # It would stand in the configuration, which every user may read.
        raise ValueError("a password in the address: use the credential webhook-token instead")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise ValueError("http:// is not encrypted: write https:// (http:// works to localhost)")
    # As given, with its query: it is often the secret itself, and is not normalized.
    target = parts.path or "/"
    is_tls = parts.scheme == "https"
    return WebAddress(
        is_tls=is_tls,
        host=host,
        port=port or (443 if is_tls else 80),
        target=f"{target}?{parts.query}" if parts.query else target,
    )


def parse_webhook(value: str) -> WebAddress | Path | None:
    """An address, the path of the file that has it, or None for the credential."""
    if value == CREDENTIAL:
        return None
    return config_text.parse_path(value) if value.startswith("/") else parse_web_address(value)


def parse_mail(value: str) -> Path | MailRelay:
    """A program like sendmail, or `smtp://HOST[:PORT]`."""
    if value.startswith("/"):
        return config_text.parse_path(value)
    scheme, _, rest = value.partition("://")
    expected = 'write "smtp://localhost:25", or a program like "/usr/sbin/sendmail"'
    if scheme != "smtp" or not rest:
        raise ValueError(f"invalid value {config_text.show_value(value)}: {expected}")
    if not re.search(r":[0-9]+\Z", rest) or rest.endswith("]"):
        rest = f"{rest}:25"
    try:
        return MailRelay(*config_text.host_and_port(rest))
    except ValueError:
        raise ValueError(
            f"invalid host or port in {config_text.show_value(value)}: {expected}"
        ) from None


def parse_mail_domain(value: str) -> str:
    """`example.org`. Raises ValueError with what would be right."""
    if not _DOMAIN.fullmatch(value):
        shown = config_text.show_value(value)
        raise ValueError(f'invalid domain {shown}: write one like "example.org"')
    return value


def parse_quiet_hours(value: str) -> QuietHours:
    """`22:00-07:00`."""
    match = _HOURS.fullmatch(value)
    shown = config_text.show_value(value)
    if match is None:
        raise ValueError(f'invalid hours {shown}: write begin and end, like "22:00-07:00"')
    hours = QuietHours(*(int(match[i]) * 60 + int(match[i + 1]) for i in (1, 3)))
    if hours.begin == hours.end:
        raise ValueError(f'{shown} begin and end at once: write hours like "22:00-07:00", or ""')
    return hours
