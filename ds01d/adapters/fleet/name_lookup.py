"""Addresses of hosts by name, within a deadline, though the host's resolver knows none.

getaddrinfo(3) cannot be interrupted and waits for as long as resolv.conf(5) says: 10 s and more. So
it runs in a thread that the caller does not wait for beyond the deadline; and what was found
last serves while the resolver is silent.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from typing import Final

# Each may cost a share of the deadline; a member has one or two, of IPv4 and IPv6.
MAX_ADDRESSES: Final = 4
_PATIENCE_S: Final = 0.5
"""How long the resolver is waited for where older addresses are cached."""

Addresses = tuple[tuple[int, tuple[str | int | bytes, ...]], ...]
"""Family and socket address of each."""


class _Lookup:
    """One question to the resolver; `done` once it is answered."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.addresses: Addresses = ()
        self.error: OSError | None = None


class NameLookup:
    """Any thread may ask. At most one question for each name is under way."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._running: dict[tuple[str, int], _Lookup] = {}
        # Without an end: an address that is stale costs a failed connection, and the next answer
        # replaces it. Names come from the configuration alone, so there are few.
        self._last: dict[tuple[str, int], Addresses] = {}

    def find_addresses(self, host: str, port: int, deadline: float) -> Addresses:
        """At least one. `deadline`: monotonic seconds. Raises OSError."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return self._ask_resolver(host, port, deadline)
        if address.version == 4:
            return ((socket.AF_INET, (host, port)),)
        return ((socket.AF_INET6, (host, port, 0, 0)),)

    def _ask_resolver(self, host: str, port: int, deadline: float) -> Addresses:
        with self._guard:
            cached = self._last.get((host, port), ())
            lookup = self._running.get((host, port))
            if lookup is None:
                lookup = self._running[host, port] = _Lookup()
                words = (host, port, lookup)
                # A daemon thread: the end of ds01d does not wait for the resolver.
                threading.Thread(
                    target=self._run_lookup, args=words, name="fleet-lookup", daemon=True
                ).start()
        left_s = max(0.0, deadline - time.monotonic())
        answered = lookup.done.wait(min(left_s, _PATIENCE_S) if cached else left_s)
        if answered and lookup.addresses:
            return lookup.addresses
        if cached:
            return cached
        if lookup.error is not None:
            raise lookup.error
        raise TimeoutError(f"no answer to a lookup of {host}")

    def _run_lookup(self, host: str, port: int, lookup: _Lookup) -> None:
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            lookup.addresses = tuple((row[0], tuple(row[4])) for row in rows[:MAX_ADDRESSES])
        except OSError as error:
            lookup.error = error
        except UnicodeError:
            # A label of a name that is empty or too long (idna).
            lookup.error = OSError(f"invalid host name {host[:80]!a}")
        finally:
            with self._guard:
                if lookup.addresses:
                    self._last[host, port] = lookup.addresses
                self._running.pop((host, port), None)
            lookup.done.set()
