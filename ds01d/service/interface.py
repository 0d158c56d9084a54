"""The interfaces as they are described to clients, and the calls that describe them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Final

import msgspec

from ds01d import __version__
from ds01d.service.varlink import (
    STANDARD_INTERFACE,
    MethodCall,
    Parameters,
    interface_not_found,
    method_not_found,
    parse_parameters,
)

# https://varlink.org/Service, as every Varlink service has it.
_SERVICE_DESCRIPTION: Final = """\
# The Varlink Service Interface is provided by every varlink service. It
# describes the service and the interfaces it implements.
interface org.varlink.service

# Get a list of all the interfaces a service provides and information
# about the implementation.
method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)

# Get the description of an interface that is implemented by this service.
method GetInterfaceDescription(interface: string) -> (description: string)

# The requested interface was not found.
error InterfaceNotFound (interface: string)

# The requested method was not found
error MethodNotFound (method: string)

# The interface defines the requested method, but the service does not
# implement it.
error MethodNotImplemented (method: string)

# One of the passed parameters is invalid.
error InvalidParameter (parameter: string)

# Client is denied access
error PermissionDenied ()

# Method is expected to be called with 'more' set to true, but wasn't
error ExpectedMore ()
"""


class _DescriptionParameters(msgspec.Struct, forbid_unknown_fields=True):
    interface: str


def read_description(interface: str) -> str:
    """The description of one of our interfaces."""
    return (files("ds01d.service") / f"{interface}.varlink").read_text("utf-8")


def answer_standard_call(call: MethodCall, offered: Sequence[str]) -> dict[str, object] | None:
    """Answer a call of org.varlink.service; None for a call of an interface that is offered.

    Raises `VarlinkError` for every other one.
    """
    interface, _, method = call.method.rpartition(".")
    if interface in offered:
        return None
    if interface != STANDARD_INTERFACE:
        raise interface_not_found(interface)
    if method == "GetInfo":
        parse_parameters(call, Parameters)
        return {
            "vendor": "ds01d",
            "product": "ds01d",
            "version": __version__,
            "url": "",
            "interfaces": [STANDARD_INTERFACE, *offered],
        }
    if method == "GetInterfaceDescription":
        wanted = parse_parameters(call, _DescriptionParameters).interface
        if wanted == STANDARD_INTERFACE:
            return {"description": _SERVICE_DESCRIPTION}
        if wanted not in offered:
            raise interface_not_found(wanted)
        return {"description": read_description(wanted)}
    raise method_not_found(call.method)
