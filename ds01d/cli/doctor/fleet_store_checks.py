"""Checks of the store that several hosts share: its members, their versions, who may write there.

Asks each member once, with the certificates and the password of the service. Changes nothing.
Imported only where `[fleet] etcd` is set.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from ds01d.adapters.fleet.book_keys import ROOT
from ds01d.adapters.fleet.etcd_client import EtcdClient
from ds01d.adapters.fleet.etcd_members import look_at_members
from ds01d.adapters.fleet.etcd_messages import RangeReply, prefix_end, range_of
from ds01d.adapters.fleet.etcd_settings import EtcdSettings
from ds01d.bootstrap_fleet import make_settings
from ds01d.cli.doctor.path_checks import effective_user
from ds01d.cli.doctor.service_checks import run_tool
from ds01d.cli.doctor.source_checks import Check, fail, ok, warn
from ds01d.config import Config
from ds01d.decide.store_versions import OLDEST, find_flaws, is_too_old, parse_version
from ds01d.errors import StoreFailed
from ds01d.model.fleet_books import MemberState
from ds01d.text import format_count

NAME: Final = "fleet store"
# A month, since they are renewed by hand.
RENEW_BEFORE: Final = timedelta(days=30)
_DOCS: Final = "see docs/fleet.md"
_DEFAULT_QUOTA: Final = 2 << 30  # --quota-backend-bytes
# At its quota etcd raises an alarm, and takes no writes until an admin has disarmed it.
_FULL: Final = 0.8


def check_fleet_store(config: Config, environ: Mapping[str, str] = os.environ) -> Iterator[Check]:
    """Members, versions, rights and certificates, where a store is configured."""
    if not config.fleet.etcd:
        return
    try:
        settings = make_settings(config.fleet, environ)
    except OSError as error:
        yield _describe_unreadable(str(error))
        return
    if problem := _find_unreadable(config, settings):
        yield _describe_unreadable(problem)
        return
    # As ds01d itself asks, or this would pass where the daemon fails.
    client = EtcdClient(settings)
    states = look_at_members(client)
    yield _check_members(states)
    yield from _check_clusters(states)
    yield from _check_versions(states)
    yield from _check_space(states)
    yield from _check_member_certificates(states)
    # Without a leader every read fails, which the members have shown already.
    if any(state.has_leader for state in states):
        yield _check_rights(client)
    if settings.tls.certificate is not None:
        yield from _check_certificate(settings.tls.certificate, config)


def _describe_unreadable(problem: str) -> Check:
    detail = f"not checked: {problem} (as {effective_user()})"
    return warn(NAME, detail, "run ds01ctl doctor as root while ds01d runs")


def _find_unreadable(config: Config, settings: EtcdSettings) -> str:
    """Credentials are root's and the service's alone."""
    paths = (settings.tls.authority, settings.tls.certificate, settings.tls.key)
    for path in paths:
        if path is not None and not os.access(path, os.R_OK):
            return f"{path} is not readable"
    if config.fleet.user:
        try:
            settings.read_password()
        except StoreFailed as error:
            return str(error)
    return ""


def _check_members(states: Sequence[MemberState]) -> Check:
    failed = [state for state in states if state.problem]
    leaderless = [state for state in states if not state.problem and not state.has_leader]
    shown = "; ".join(
        [*(state.problem for state in failed), *(f"{s.endpoint}: no leader" for s in leaderless)]
    )
    if not failed and not leaderless:
        members = format_count(len(states), "member")
        # A fourth member raises the majority from two to three, and one may fail as before.
        if len(states) % 2 == 0:
            detail = f"{members}: no more of them may fail than of {len(states) - 1}"
            return warn(NAME, detail, "an odd number of members is as safe and needs one less")
        return ok(NAME, f"{members} with a leader")
    if len(failed) + len(leaderless) == len(states):
        return fail(NAME, f"no member can be asked: {shown}", f"journalctl -u etcd there; {_DOCS}")
    return warn(NAME, f"not every member can be asked: {shown}", "journalctl -u etcd there")


def _check_clusters(states: Sequence[MemberState]) -> Iterator[Check]:
    clusters: dict[str, list[str]] = {}
    for state in states:
        if state.cluster:
            clusters.setdefault(state.cluster, []).append(state.endpoint)
    # Decision 306: two addresses may lead to two clusters, each of which looks right by itself.
    if len(clusters) > 1:
        parts = (f"{cluster}: {', '.join(names)}" for cluster, names in clusters.items())
        detail = f"fleet.etcd lists members of {len(clusters)} clusters: {'; '.join(parts)}"
        yield fail(NAME, detail, "list the members of one: etcdctl member list")


def _check_versions(states: Sequence[MemberState]) -> Iterator[Check]:
    """One line for each version in use."""
    # Each once; during an upgrade there are two.
    for text in sorted({state.version for state in states if not state.problem}):
        version = parse_version(text)
        if version is None:
            yield warn(NAME, f'etcd has an unknown version "{text}"', _DOCS)
        elif is_too_old(version):
            oldest = ".".join(map(str, OLDEST[:2]))
            detail = f"etcd {text} is not supported, and unsafe: {'; '.join(find_flaws(version))}"
            yield fail(NAME, detail, f"upgrade to {oldest} or newer, one minor version at a time")
        elif flaws := find_flaws(version):
            detail = f"etcd {text}: its users and roles protect nothing: {'; '.join(flaws)}"
            fix = (
                "upgrade to 3.5.33, 3.6.14, 3.7.1 or newer; until then let a packet filter admit"
                " only hosts that are trusted"
            )
            yield warn(NAME, detail, fix)
        else:
            yield ok(NAME, f"etcd {text}")


def _check_space(states: Sequence[MemberState]) -> Iterator[Check]:
    fix = (
        "set auto-compaction-retention=1h; then etcdctl compact, defrag, and alarm disarm where"
        " etcdctl alarm list has one"
    )
    for state in states:
        if state.errors:
            yield fail(NAME, f"{state.endpoint}: {'; '.join(state.errors)}", fix)
        elif state.size > _FULL * (state.quota or _DEFAULT_QUOTA):
            limit = f"{(state.quota or _DEFAULT_QUOTA) / 2**30:.1f} GiB"
            limit += "" if state.quota else " (unless quota-backend-bytes is set)"
            used = f"{state.size / 2**30:.1f} GiB"
            detail = f"{state.endpoint}: {used} of space used; no more writes from {limit} on"
            yield warn(NAME, detail, fix)


def _check_member_certificates(states: Sequence[MemberState]) -> Iterator[Check]:
    for state in states:
        end = state.certificate_end
        if end is not None and end - time.time() < RENEW_BEFORE.total_seconds():
            shown = time.strftime("%Y-%m-%d", time.gmtime(end))
            detail = f"{state.endpoint}: its certificate is valid until {shown}"
            yield warn(NAME, detail, "renew it there, and restart etcd, one member at a time")


def _check_rights(client: EtcdClient) -> Check:
    try:
        client.call("/kv/range", range_of(ROOT, prefix_end(ROOT), limit=1), RangeReply)
    except StoreFailed as error:
        return fail(NAME, str(error), _DOCS)
    return ok(NAME, f"{ROOT.decode()} is readable")


def _check_certificate(path: Path, config: Config) -> Iterator[Check]:
    """Its end, and its name: openssl is asked, where there is one."""
    words = ("openssl", "x509", "-noout", "-in", str(path))
    answer = run_tool((*words, "-subject", "-nameopt", "RFC2253", "-enddate"))
    if isinstance(answer, str) or answer.returncode != 0:
        return
    lines = dict(line.partition("=")[::2] for line in answer.stdout.splitlines())
    subject, end = lines.get("subject", "").strip(), lines.get("notAfter", "").strip()
    # etcd refuses it only once users are switched on (etcd 10392).
    if config.fleet.user and "CN=" in subject:
        detail = f"{path} has a common name ({subject}): etcd refuses it where users log in"
        yield fail(NAME, detail, "make a certificate without CN")
    seconds = str(int(RENEW_BEFORE.total_seconds()))
    # openssl compares, since its dates have a form of their own.
    check = run_tool((*words, "-checkend", seconds))
    if not isinstance(check, str) and check.returncode != 0:
        detail = f"{path} is valid until {end}"
        yield warn(NAME, detail, "renew it: ds01d reads it again by itself (credentials: restart)")
