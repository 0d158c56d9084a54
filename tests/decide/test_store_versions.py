"""Which versions of etcd are too old, and where its users protect nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.decide.store_versions import EtcdVersion, find_flaws, is_too_old, parse_version

NESTED, OPEN, REPLACED, WATCH = (
    "CVE-2026-33343",
    "CVE-2026-33413",
    "CVE-2026-44283",
    "CVE-2026-73499",
)


@pytest.mark.parametrize(
    ("text", "too_old", "flaws"),
    [
        ("3.3.27", True, (NESTED, OPEN, REPLACED, WATCH)),
        ("3.4.23", True, (NESTED, OPEN, REPLACED, WATCH)),  # Debian 12
        ("3.4.44", True, (WATCH,)),
        ("3.5.16", False, (NESTED, OPEN, REPLACED, WATCH)),  # Debian 13
        ("3.5.28", False, (REPLACED, WATCH)),
        ("3.5.30", False, (WATCH,)),
        ("3.5.33", False, ()),
        ("3.6.8", False, (NESTED, OPEN, REPLACED, WATCH)),
        ("3.6.14", False, ()),
        ("3.7.0", False, (WATCH,)),
        ("3.7.1+git", False, ()),
        ("3.8.0-alpha.0", False, ()),
        ("4.0.0", False, ()),
    ],
)
def test_versions(text: str, too_old: bool, flaws: tuple[str, ...]) -> None:
    version = parse_version(text)
    assert version is not None
    assert is_too_old(version) is too_old
    assert tuple(flaw.partition(":")[0] for flaw in find_flaws(version)) == flaws


@given(st.text())
def test_whatever_a_server_calls_its_version(text: str) -> None:
    version = parse_version(text)
    assert version is None or isinstance(find_flaws(version), tuple)


@given(st.integers(3, 8), st.integers(0, 60))
def test_a_newer_patch_is_never_worse(minor: int, patch: int) -> None:
    older = find_flaws(EtcdVersion(3, minor, patch))
    newer = find_flaws(EtcdVersion(3, minor, patch + 1))
    assert set(newer) <= set(older)
