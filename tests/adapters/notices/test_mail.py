"""Mail: to users of this host alone, by a server or a program that may do anything."""

from __future__ import annotations

import email
import email.policy
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ds01d.adapters.notices import mail as mail_module
from ds01d.adapters.notices.mail import Mail, format_mail
from ds01d.errors import DeliveryFailed
from ds01d.notify_settings import MailRelay
from simulation.ports import find_free_port
from tests.support.notices import HOSTILE, LOGIN, Server, notice, serving
from tests.support.scripts import write_script


def speaking(
    greeting: str = "220 ready", receiver: str = "250 ok", end: str = "250 taken"
) -> Callable[[socket.socket, Server], None]:
    """A mail server; `requests` gets the envelope and the message."""

    def answer(connection: socket.socket, server: Server) -> None:
        lines = connection.makefile("rb")

        def reply(text: str) -> None:
            connection.sendall(f"{text}\r\n".encode())

        reply(greeting)
        envelope = b""
        for line in lines:
            word = line[:4].upper()
            if word in {b"MAIL", b"RCPT"}:
                envelope += line
                reply(receiver if word == b"RCPT" else "250 ok")
            elif word == b"DATA":
                reply("354 go on")
                message = b"".join(iter(lines.readline, b".\r\n"))
                server.requests.append(envelope + b"\r\n" + message)
                reply(end)
            else:
                reply("221 bye" if word == b"QUIT" else "250 ok")

    return answer


def by_server(port: int, *, domain: str = "example.org", timeout_s: float = 20.0) -> Mail:
    return Mail(MailRelay("127.0.0.1", port), domain, "gpu01.example.org", timeout_s=timeout_s)


def test_a_server_gets_one_message_to_the_user_at_the_domain() -> None:
    with serving(speaking()) as server:
        by_server(server.port).send(notice())
    (request,) = server.requests
    envelope, _, message = request.partition(b"\r\n\r\n")
    assert b"from:<ds01d-notify@gpu01.example.org>" in envelope.lower()
    assert f"to:<{LOGIN}@example.org>".encode() in envelope.lower()
    parsed = email.message_from_bytes(message, policy=email.policy.default)
    assert parsed["To"] == f"{LOGIN}@example.org"
    assert parsed["Subject"] == f"GPU notice from gpu01.example.org: {notice().message}"
    assert parsed["Message-ID"] == f"<{notice().id}@gpu01.example.org>"
    assert parsed["Auto-Submitted"] == "auto-generated"
    assert notice().message in parsed.get_content()


@pytest.mark.parametrize(
    ("answers", "is_final"),
    [
        ({"receiver": "450 come again"}, False),
        ({"receiver": "550 no such user"}, True),
        ({"greeting": "421 busy"}, False),
        ({"greeting": "554 go away"}, True),
        ({"end": "452 full"}, False),
    ],
)
def test_what_a_server_puts_off_is_tried_again(answers: dict[str, str], is_final: bool) -> None:
    with serving(speaking(**answers)) as server, pytest.raises(DeliveryFailed) as caught:
        by_server(server.port).send(notice())
    assert caught.value.is_final is is_final
    assert str(caught.value) == f"mail: {next(iter(answers.values()))}"


def drip(connection: socket.socket, _server: Server) -> None:
    for _ in range(400):
        connection.sendall(b"2")
        time.sleep(0.05)


def hang(connection: socket.socket, _server: Server) -> None:
    connection.recv(1)
    threading.Event().wait(20.0)


@pytest.mark.parametrize("answer", [drip, hang])
def test_a_server_that_never_comes_to_an_end_costs_the_timeout(
    answer: Callable[[socket.socket, Server], None],
) -> None:
    with serving(answer) as server:
        began = time.monotonic()
        with pytest.raises(DeliveryFailed) as caught:
            by_server(server.port, timeout_s=0.5).send(notice())
        assert not caught.value.is_final
        assert time.monotonic() - began < 10.0


def test_a_server_that_refuses_is_tried_again() -> None:
    with pytest.raises(DeliveryFailed, match="Connection refused") as caught:
        by_server(find_free_port()).send(notice())
    assert not caught.value.is_final


def sendmail(folder: Path, text: str) -> Path:
    return write_script(folder / "sendmail", f'printf "%s\\n" "$@" > {folder}/args\n{text}')


def test_sendmail_gets_the_message_as_its_input(tmp_path: Path) -> None:
    path = sendmail(tmp_path, f"cat > {tmp_path}/message")
    Mail(path, "", "gpu01").send(notice())
    assert (tmp_path / "args").read_text().split("\n") == ["-i", "--", LOGIN, ""]
    parsed = email.message_from_bytes((tmp_path / "message").read_bytes())
    assert parsed["To"] == LOGIN


@pytest.mark.parametrize(("code", "is_final"), [(67, True), (68, True), (75, False), (1, False)])
def test_an_unknown_user_is_not_tried_again(tmp_path: Path, code: int, is_final: bool) -> None:
    path = sendmail(tmp_path, f"echo unknown >&2; exit {code}")
    with pytest.raises(DeliveryFailed, match=f"exit status {code}: unknown") as caught:
        Mail(path, "", "gpu01").send(notice())
    assert caught.value.is_final is is_final


def test_a_sendmail_that_reads_nothing_or_hangs_ends(tmp_path: Path) -> None:
    Mail(sendmail(tmp_path, "exec 0<&-; exit 0"), "", "gpu01").send(notice(message="x" * 200_000))
    slow = Mail(sendmail(tmp_path, "sleep 600"), "", "gpu01", timeout_s=0.5)
    with pytest.raises(DeliveryFailed, match=r"did not end within 0\.5 s"):
        slow.send(notice(message="x" * 200_000))


@pytest.mark.parametrize("login", [*HOSTILE, "victim@example.org", "-oQ/tmp", ""])
def test_who_is_no_user_of_this_host_gets_none(tmp_path: Path, login: str) -> None:
    path = sendmail(tmp_path, "")
    with pytest.raises(DeliveryFailed, match="no user") as caught:
        Mail(path, "", "gpu01").send(notice(user=login))
    assert caught.value.is_final
    assert str(caught.value).isprintable()
    assert not (tmp_path / "args").exists()


@pytest.mark.parametrize("login", [*HOSTILE, "-oQ/tmp", "a,b", "a b", "<a>", "a|b", "a@b@c"])
def test_a_login_of_this_host_that_is_no_address_gets_none(
    tmp_path: Path, login: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail_module, "find_uid", lambda _: os.getuid())
    path = sendmail(tmp_path, "")
    with pytest.raises(DeliveryFailed, match="cannot be a mail address") as caught:
        Mail(path, "example.org", "gpu01").send(notice(user=login))
    assert caught.value.is_final
    assert not (tmp_path / "args").exists()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_add_no_header_and_no_line(text: str) -> None:
    data = format_mail(notice(message=text), "gpu01", "a@b", "c@d")
    data.decode("ascii")
    parsed = email.message_from_bytes(data, policy=email.policy.default)
    assert set(parsed.keys()) == {
        *("Subject", "From", "To", "Date", "Message-ID", "Auto-Submitted"),
        *("Content-Type", "Content-Transfer-Encoding", "MIME-Version"),
    }
    assert str(parsed["Subject"]).isprintable()
    assert len(str(parsed["Subject"])) <= 121
