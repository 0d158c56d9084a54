"""Text for people: one line whatever it holds, spans in two units, counts."""

from __future__ import annotations

import pytest

from ds01d.text import format_count, format_span, make_printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("train._.1001 容", "train._.1001 容"),
        ("a\nb\x1b[31m", r"a\nb\x1b[31m"),
        ("\u202etxt\u2028", r"\u202etxt\u2028"),
        ("\udcff", r"\udcff"),  # a byte of a file name that is not UTF-8
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert make_printable(text) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0 s"),
        (0.4, "0 s"),
        (59.6, "1 m"),
        (119, "1 m 59 s"),
        (120, "2 m"),
        (7199, "1 h 59 m"),
        (7200, "2 h"),
        (3 * 86400 + 4 * 3600 + 59, "3 d 4 h"),
    ],
)
def test_a_span_has_its_two_largest_units(seconds: float, shown: str) -> None:
    assert format_span(seconds) == shown


def test_one_is_no_plural() -> None:
    assert [format_count(count, "drift") for count in (0, 1, 2)] == [
        "0 drifts",
        "1 drift",
        "2 drifts",
    ]
