"""Asks the daemon over its socket, briefly: a daemon that is busy must not keep readers waiting."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ds01d.errors import Ds01Error
from ds01d.service.client import INTERFACE
from ds01d.service.exchange import (
    ServiceUnanswered,
    encode_call,
    exchange_messages,
    open_connection,
)

PATIENCE_S: Final = 1.0
"""The page makes three calls at most, and a client of it is given five seconds."""


def ask_service(path: Path | None, method: str, parameters: Mapping[str, object]) -> dict[str, Any]:
    """The parameters of the reply to a call that changes nothing. Raises `Ds01Error`."""
    if path is None:
        raise Ds01Error("the service of ds01d is off (service.socket)")
    call = encode_call(f"{INTERFACE}.{method}", parameters, more=False)
    with open_connection(path) as connection:
        connection.settimeout(PATIENCE_S)
        try:
            return next(exchange_messages(connection, method, call, None))
        except ServiceUnanswered as error:
            # Its own text warns that something may have been changed; here nothing can have been.
            raise Ds01Error(f"no answer of ds01d within {PATIENCE_S:g} s") from error
