"""The values of [fleet] that have a form of their own: names of hosts, members of a store. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from ds01d import config_text

CREDENTIALS: Final = "credentials"
"""As `fleet.certificates`: they are credentials of the unit (LoadCredential=)."""
# etcd itself advises seven at most (its FAQ): more than twice that is a mistake.
_MAX_MEMBERS: Final = 16
_CLIENT_PORT: Final = 2379  # of etcd, registered with IANA
# As ssh_config(5) takes them: an alias there is a name like any other.
_HOST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}")
_ETCD_USER: Final = re.compile(r"[A-Za-z0-9_.@-]{1,128}")


class StoreMember(NamedTuple):
    """Where a member of the store is."""

    is_tls: bool
    host: str
    port: int


def ssh_host_problem(name: str) -> str | None:
    """What is wrong with the name of a host for ssh; None if nothing is.

    Users and ports belong into ssh_config, and a leading "-" would be an option.
    """
    if _HOST.fullmatch(name):
        return None
    return (
        f"{config_text.show_value(name)} is not a valid host name: write one as ssh knows it, like"
        ' "gpu01" (user and port: in ssh_config)'
    )


def parse_member(value: str) -> StoreMember:
    """`https://HOST[:PORT]`. Raises ValueError with what would be right."""
    scheme, separator, rest = value.partition("://")
    expected = 'write one like "https://etcd1.example.org:2379"'
    shown = config_text.show_value(value)
    if scheme not in {"http", "https"} or not separator:
        raise ValueError(f"{shown} is not an address of a member of etcd: {expected}")
    rest = rest.removesuffix("/")
    # A password would stand where every user may read it; a path is no part of etcd's interface.
    if re.search(r"[/@?#]", rest):
        raise ValueError(f"{shown} has more than a host and a port: {expected}")
    if not re.search(r":[0-9]+\Z", rest) or rest.endswith("]"):
        rest = f"{rest}:{_CLIENT_PORT}"
    try:
        host, port = config_text.host_and_port(rest)
    except ValueError:
        raise ValueError(f"invalid host or port in {shown}: {expected}") from None
    return StoreMember(is_tls=scheme == "https", host=host, port=port)


def find_store_problems(
    members: Sequence[str], *, name: str, certificates: str, user: str
) -> Iterator[tuple[str, str]]:
    """What is wrong with the settings of the store: (key, why, and what would be right)."""
    # Hundreds would each cost a call its deadline.
    parsed: list[StoreMember] = []
    for value in members[: _MAX_MEMBERS + 1]:
        problem = _parse_into(parsed, value)
        if problem:
            yield "fleet.etcd", problem
    if len(members) > _MAX_MEMBERS:
        yield "fleet.etcd", f"more than {_MAX_MEMBERS} members: list those of one etcd"
    if len(set(parsed)) != len(parsed):
        yield "fleet.etcd", "a member is listed twice: list each once"
    if name and not _HOST.fullmatch(name):
        shown = config_text.show_value(name)
        yield "fleet.name", f'{shown} is not a valid name of a host: write one like "gpu01"'
    if user and not _ETCD_USER.fullmatch(user):
        yield "fleet.user", f"{config_text.show_value(user)} is not a user of etcd: write its name"
    if certificates and certificates != CREDENTIALS:
        try:
            config_text.parse_path(certificates)
        except ValueError:
            problem = f'write the path of a folder, or "{CREDENTIALS}"'
            yield "fleet.certificates", problem
    if certificates and parsed and not all(member.is_tls for member in parsed):
        yield "fleet.certificates", "only for https:// members: write each one in fleet.etcd so"


def _parse_into(parsed: list[StoreMember], value: str) -> str:
    """Add the member, or give why it is none."""
    try:
        parsed.append(parse_member(value))
    except ValueError as error:
        return str(error)
    return ""


def is_unprotected(members: Sequence[str]) -> bool:
    """Whether what is said to a member goes over the network as it is."""
    for value in members:
        with suppress(ValueError):
            member = parse_member(value)
            if not member.is_tls and not config_text.is_loopback(member.host):
                return True
    return False
