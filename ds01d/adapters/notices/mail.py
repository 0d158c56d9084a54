"""Notices by mail, to the login itself or to it at a domain: by a server, or by sendmail."""

from __future__ import annotations

import email.policy
import os
import re
import smtplib
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path
from typing import Final

from ds01d.adapters.notices.command import SEARCH_PATH
from ds01d.adapters.notices.connections import open_connection
from ds01d.adapters.notices.programs import run_program
from ds01d.adapters.notices.terminals import find_uid
from ds01d.errors import DeliveryFailed
from ds01d.model.notice import DeliveryTarget, SpooledNotice
from ds01d.notify_settings import MailRelay
from ds01d.text import make_printable

TIMEOUT_S: Final = 20.0
_SUBJECT: Final = 120
_READY: Final = 220
# What no mail server takes for an option, a list, a pipe or another host.
_ADDRESS: Final = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}(@[A-Za-z0-9][A-Za-z0-9.-]{0,252})?"
)


class Mail:
    """`transport`: the path of a program like sendmail, or a server."""

    name: Final = DeliveryTarget.MAIL

    def __init__(
        self,
        transport: Path | MailRelay,
        domain: str,
        host: str,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._transport, self._domain, self._host = transport, domain, host
        self._timeout_s = timeout_s

    def send(self, notice: SpooledNotice) -> None:
        """Raises `DeliveryFailed` unless the server has taken it over."""
        # A user in the books may be named by a label: mail is for users of this host alone.
        find_uid(notice.user)
        receiver = self._find_address(notice.user)
        sender = f"ds01d-notify@{self._host}"
        data = format_mail(notice, self._host, sender, receiver)
        if isinstance(self._transport, MailRelay):
            self._send_by_server(self._transport, sender, receiver, data)
        else:
            self._send_by_program(self._transport, receiver, data)

    def _find_address(self, login: str) -> str:
        address = f"{login}@{self._domain}" if self._domain and "@" not in login else login
        if not _ADDRESS.fullmatch(address):
            shown = make_printable(login)[:64]
            raise DeliveryFailed(f'login "{shown}" cannot be a mail address', is_final=True)
        return address

    def _send_by_program(self, path: Path, receiver: str, data: bytes) -> None:
        environ = {"PATH": f"{SEARCH_PATH}:/usr/sbin:/sbin", "LANG": "C.UTF-8"}
        # The arguments that every sendmail knows. What it leaves running delivers the mail.
        code, output = run_program(
            [str(path), "-i", "--", receiver],
            environ,
            data,
            timeout_s=self._timeout_s,
            ends_children=False,
        )
        if code:
            is_final = code in {os.EX_NOUSER, os.EX_NOHOST, os.EX_USAGE, os.EX_DATAERR}
            raise DeliveryFailed(f"{path}: exit status {code}{output}", is_final=is_final)

    def _send_by_server(self, relay: MailRelay, sender: str, receiver: str, data: bytes) -> None:
        try:
            with (
                open_connection(relay.host, relay.port, self._timeout_s) as connection,
                smtplib.SMTP(local_hostname=self._host) as client,
            ):
                # What its `connect` does, on a connection that has a deadline for the whole.
                client.sock = connection
                code, text = client.getreply()
                if code != _READY:
                    raise _explain_refusal(code, text)
                client.sendmail(sender, [receiver], data)
        except smtplib.SMTPRecipientsRefused as error:
            code, text = next(iter(error.recipients.values()), (0, b""))
            raise _explain_refusal(code, text) from error
        except smtplib.SMTPResponseException as error:
            raise _explain_refusal(error.smtp_code, error.smtp_error) from error
        except (OSError, ValueError) as error:  # of smtplib, too
            reason = make_printable(str(error) or type(error).__name__)[:200]
            raise DeliveryFailed(f"mail: {relay.host}:{relay.port}: {reason}") from error


def _explain_refusal(code: int, text: bytes | str) -> DeliveryFailed:
    shown = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    reason = make_printable(" ".join(shown.split()))[:200]
    # 4xx: later (RFC 5321, 4.2.1), greylisting for one.
    return DeliveryFailed(f"mail: {code} {reason}", is_final=500 <= code < 600)


def format_mail(notice: SpooledNotice, host: str, sender: str, receiver: str) -> bytes:
    """The whole message; lines end as SMTP has it."""
    text = make_printable(notice.message)
    # 7bit: not each server takes more, and smtplib does not ask.
    mail = EmailMessage(policy=email.policy.SMTP.clone(cte_type="7bit"))
    subject = f"GPU notice from {host}: {text}"
    mail["Subject"] = subject if len(subject) <= _SUBJECT else f"{subject[:_SUBJECT]}…"
    mail["From"], mail["To"] = sender, receiver
    mail["Date"] = formatdate(notice.at, localtime=True)
    mail["Message-ID"] = f"<{notice.id}@{host}>"
    # So that no holiday responder answers (RFC 3834).
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(f"{text}\n\nSent by ds01d on {host}.\n")
    return mail.as_bytes()
