"""Addresses and hours of [notify]: a refusal says what would be right, and shows no secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.config_checks import describe_risks
from ds01d.config_file import parse_config
from ds01d.errors import ConfigError
from ds01d.notify_settings import (
    MailRelay,
    WebAddress,
    parse_mail,
    parse_quiet_hours,
    parse_web_address,
    parse_webhook,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://h.example/a?b=c", WebAddress(True, "h.example", 443, "/a?b=c")),
        ("https://h.example:8443", WebAddress(True, "h.example", 8443, "/")),
        ("http://localhost:80/x", WebAddress(False, "localhost", 80, "/x")),
        ("https://[::1]/x", WebAddress(True, "::1", 443, "/x")),
    ],
)
def test_addresses(value: str, expected: WebAddress) -> None:
    assert parse_web_address(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        *("http://h.example/sesame", "ftp://h.example/sesame", "https:///sesame", "sesame"),
        *(
            "https://user:sesame@h.example/",
            "https://h.example/\r\nsesame: 1",
            "https://h:0/sesame",
        ),
        *("https://h.example:99999/sesame", "https://[::1/sesame", f"https://h/sesame{'x' * 3000}"),
        *("https://h.exämple/sesame", "https://h.example/sesame b", "https://h\\@e/sesame"),
    ],
)
def test_an_address_that_is_refused_is_not_shown(value: str) -> None:
    with pytest.raises(ValueError, match=r"https://|credential") as caught:
        parse_web_address(value)
    assert "sesame" not in str(caught.value)


@given(st.text())
def test_any_text_is_an_address_or_refused(value: str) -> None:
    try:
        address = parse_web_address(value)
    except ValueError:
        return
    assert address.target.startswith(("/", "?"))
    assert address.target.isprintable()


def test_where_the_address_may_be() -> None:
    assert parse_webhook("credential") is None
    assert parse_webhook("/etc/ds01/webhook") == Path("/etc/ds01/webhook")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/usr/sbin/sendmail", Path("/usr/sbin/sendmail")),
        ("smtp://localhost", MailRelay("localhost", 25)),
        ("smtp://mail.example:587", MailRelay("mail.example", 587)),
        ("smtp://[::1]", MailRelay("::1", 25)),
        ("smtp://[::1]:26", MailRelay("::1", 26)),
    ],
)
def test_mail(value: str, expected: object) -> None:
    assert parse_mail(value) == expected


@pytest.mark.parametrize(
    ("hours", "minute", "left"),
    [
        ("22:00-07:00", 22 * 60, 9 * 60),
        ("22:00-07:00", 0, 7 * 60),
        ("22:00-07:00", 7 * 60 - 1, 1),
        ("22:00-07:00", 7 * 60, 0),
        ("22:00-07:00", 22 * 60 - 1, 0),
        ("12:00-13:30", 12 * 60, 90),
        ("12:00-13:30", 13 * 60 + 30, 0),
        ("00:00-23:59", 23 * 60 + 59, 0),
    ],
)
def test_quiet_hours_go_over_midnight(hours: str, minute: int, left: int) -> None:
    assert parse_quiet_hours(hours).find_left_minutes(minute) == left


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('mail = "sendmail"', 'notify.mail: invalid value "sendmail": write "smtp://localhost:25"'),
        ('mail = "smtp://h:x"', "notify.mail: invalid"),
        ('mail_domain = "-x"', 'notify.mail_domain: invalid domain "-x": write one like'),
        ('webhook = "http://h.example/"', "notify.webhook: http:// is not encrypted"),
        ('webhook_form = "xml"', 'notify.webhook_form: "xml" is not possible: write "json" or'),
        ('quiet_hours = "22-7"', 'notify.quiet_hours: invalid hours "22-7": write begin and end'),
        ('quiet_hours = "22:00-22:00"', "notify.quiet_hours:"),
        ('command = "on-notice"', 'notify.command: invalid path "on-notice": write an absolute'),
        ("terminals = 1", "notify.terminals: Expected `bool`"),
        ("hold_warning = []", 'notify.hold_warning: write 1 to 8 durations, like ["30m", "5m"]'),
        ('hold_warning = ["30"]', 'notify.hold_warning: invalid duration "30"'),
        ("hold_warning = 5", "notify.hold_warning: invalid duration 5"),
        ("hold_warning = [[]]", "notify.hold_warning: invalid duration []"),
    ],
)
def test_what_is_refused_names_file_line_key_and_what_is_right(line: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(f"[notify]\n{line}\n", origin="x.toml")
    assert str(caught.value).startswith(f"x.toml, line 2: {expected}")


def test_one_warning_or_several_the_longest_first() -> None:
    for text, expected in (('"10m"', (600.0,)), ('["5m", "1h", "5m"]', (3600.0, 300.0))):
        config = parse_config(f"[notify]\nhold_warning = {text}\n", origin="x")
        assert config.notify.hold_warnings_s == expected


def test_an_address_that_is_a_password_is_a_risk_in_a_file_for_everybody() -> None:
    text = '[notify]\nwebhook = "https://hooks.example/T0/B0/x"\nwebhook_form = "slack"\n'
    risks = describe_risks(parse_config(text, origin="x"))
    assert any(risk.startswith("notify.webhook: ") for risk in risks)
    assert "T0/B0" not in "".join(risks)
    kept = text.replace("https://hooks.example/T0/B0/x", "/etc/ds01/webhook")
    assert not any("notify" in risk for risk in describe_risks(parse_config(kept, origin="x")))
