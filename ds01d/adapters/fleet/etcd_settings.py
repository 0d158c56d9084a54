"""Where a fleet's etcd is, and how it is reached. Values only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ds01d.fleet_settings import parse_member

# Seconds, for all members together: a booking waits no longer than that for a store that is away.
CALL_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdEndpoint:
    """The address of a member for clients."""

    is_tls: bool
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files. `authority` None: those that the system trusts; `certificate` None: none shown.

    The certificate must have no common name: with one the gateway refuses everything (etcd 10392).
    """

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdSettings:
    """`endpoints`: of members of one cluster, at least one. `user` "": etcd asks for none.

    `timeout_s`: of a call, whatever it consists of. `read_password`: called for each login, so that
    a new password counts at once; raises StoreFailed, whose text does not show it.
    """

    endpoints: tuple[EtcdEndpoint, ...]
    timeout_s: float = CALL_S
    tls: TlsFiles = TlsFiles()
    user: str = ""
    read_password: Callable[[], str] = lambda: ""


def parse_endpoint(text: str) -> EtcdEndpoint:
    """`http://HOST[:PORT]` or `https://…`. Raises ValueError, whose text says what is expected."""
    return EtcdEndpoint(**parse_member(text)._asdict())
