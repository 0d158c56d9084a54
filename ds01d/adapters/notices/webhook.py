"""Notices to a webhook: one POST each, as JSON, or as Slack or Microsoft Teams take it.

No redirect is followed, no proxy used, TLS always verified, the answer read only to a bound. The
address may be a secret: no message of an error has it.
"""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

from ds01d import __version__
from ds01d.adapters.files.safe_read import NotRead, read_bytes
from ds01d.adapters.notices.connections import open_connection
from ds01d.errors import DeliveryFailed
from ds01d.model.notice import DeliveryTarget, SpooledNotice
from ds01d.notify_settings import WebAddress, parse_web_address
from ds01d.text import make_printable

Form = Literal["json", "slack", "teams"]
TIMEOUT_S: Final = 10.0
_MAX_SECRET_BYTES: Final = 4096
_MAX_ANSWER_BYTES: Final = 64 * 1024
_SHOWN: Final = 100  # characters of an answer
_RETRIED: Final = frozenset({408, 425, 429})
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")


def read_secret(path: Path) -> str:
    """The one line of a file with a secret. Raises `DeliveryFailed`, which does not show it."""
    data = read_bytes(path, _MAX_SECRET_BYTES)
    if isinstance(data, NotRead):
        raise DeliveryFailed(data.reason)
    text = data.decode("ascii", "replace").strip()
    if not _TOKEN.fullmatch(text):
        raise DeliveryFailed(f"{path}: expected one line of ASCII without blanks")
    return text


class Webhook:
    """`find_address` and `find_token` read them for each notice, so that a new one counts at once.

    `find_token` gives "" where there is none. `trusted`: a file of certificates for tests.
    """

    name: Final = DeliveryTarget.WEBHOOK

    def __init__(
        self,
        find_address: Callable[[], WebAddress],
        find_token: Callable[[], str],
        form: Form,
        host: str,
        *,
        timeout_s: float = TIMEOUT_S,
        trusted: Path | None = None,
    ) -> None:
        self._find_address, self._find_token = find_address, find_token
        self._form, self._host = form, host
        self._timeout_s, self._trusted = timeout_s, trusted

    def send(self, notice: SpooledNotice) -> None:
        """Raises `DeliveryFailed` unless the server answers with 2xx in time."""
        body = msgspec.json.encode(format_notice(notice, self._form, self._host))
        try:
            status, answer = self._post(self._find_address(), self._find_token(), notice.id, body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise DeliveryFailed(f"webhook: {make_printable(str(reason))[:200]}") from error
        if 200 <= status < 300:
            return
        if 300 <= status < 400:
            raise DeliveryFailed(
                f"webhook: HTTP {status}, a redirect, which is not followed: write the address it"
                " leads to",
                is_final=True,
            )
        is_final = status < 500 and status not in _RETRIED
        raise DeliveryFailed(f"webhook: HTTP {status}{answer}", is_final=is_final)

    def _post(self, address: WebAddress, token: str, key: str, body: bytes) -> tuple[int, str]:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"ds01d/{__version__}",
            # The field's name for it (IETF httpapi): a server can drop a second copy.
            "Idempotency-Key": f'"{key}"',
            "Connection": "close",
        }
        if token:
            headers["Authorization"] = f"Bearer {token}"
        with open_connection(address.host, address.port, self._timeout_s) as connection:
            client = http.client.HTTPConnection(address.host, address.port)
            if address.is_tls:
                context = ssl.create_default_context(cafile=self._trusted)
                client.default_port = http.client.HTTPS_PORT  # for the Host header
                client.sock = context.wrap_socket(connection, server_hostname=address.host)
            else:
                client.sock = connection
            try:
                client.request("POST", address.target, body, headers)
                answer = client.getresponse()
                shown = answer.read(_MAX_ANSWER_BYTES)[:_SHOWN].decode("utf-8", "replace")
            finally:
                client.close()
        return answer.status, f": {make_printable(shown.strip())}" if shown.strip() else ""


def find_address(value: str, credentials: Path | None) -> WebAddress:
    """The address that `notify.webhook` names. Raises `DeliveryFailed`, which does not show it."""
    if "://" in value:
        return parse_web_address(value)
    if value.startswith("/"):
        path = Path(value)
    elif credentials is not None:
        path = credentials / "webhook"
    else:
        raise DeliveryFailed("webhook: there is no credential: LoadCredential=webhook:/path/of/it")
    try:
        return parse_web_address(read_secret(path))
    except ValueError as error:
        raise DeliveryFailed(f"{path}: {error}") from error


def find_token(credentials: Path | None) -> str:
    """The credential `webhook-token`, "" where the unit has none."""
    path = None if credentials is None else credentials / "webhook-token"
    return "" if path is None or not path.exists() else read_secret(path)


def format_notice(notice: SpooledNotice, form: Form, host: str) -> dict[str, object]:
    """The body. What users have named is text in each form, never markup."""
    line = make_printable(f"{host}: {notice.user}: {notice.message}")
    match form:
        case "slack":
            # Their own three signs: without this a name could be a link, or call a channel.
            escaped = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            return {"text": escaped, "mrkdwn": False, "unfurl_links": False}
        case "teams":
            # TextRun: unlike TextBlock it knows no Markdown, so no name is a link.
            block = {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": line}]}
            card = {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": [block],
            }
            kind = "application/vnd.microsoft.card.adaptive"
            return {
                "type": "message",
                "attachments": [{"contentType": kind, "contentUrl": None, "content": card}],
            }
        case "json":
            return {
                "version": 1,
                "id": notice.id,
                "host": host,
                "kind": notice.kind,
                "time": notice.at,
                "user": make_printable(notice.user),
                "container": make_printable(notice.container),
                "slots": [*map(make_printable, notice.slots)],
                "until": notice.until,
                "message": make_printable(notice.message),
            }
