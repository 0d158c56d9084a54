"""The parameters of the calls of io.github.ds01.Containers, parsed strictly."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ds01d.service.varlink import Parameters

Text = Annotated[str, msgspec.Meta(max_length=256)]  # it gets into logs


class NameParameters(Parameters, frozen=True):
    name: Text


class CreateParameters(NameParameters, frozen=True):
    framework: Text | None = None
    image: Text | None = None
    architecture: Annotated[str, msgspec.Meta(pattern=r"^[\w.-]{1,64}\Z")] | None = None
    gpus: Annotated[int, msgspec.Meta(ge=0, le=64)] | None = None
    slots: Annotated[tuple[Text, ...], msgspec.Meta(max_length=64)] = ()
    user: Text | None = None
    workdir: Annotated[str, msgspec.Meta(max_length=4096)] | None = None
    start: bool | None = None
    wait: bool | None = None
    dry_run: bool | None = None


class StopParameters(NameParameters, frozen=True):
    kill_after_s: Annotated[int, msgspec.Meta(ge=0, le=3600)] | None = None


class RemoveParameters(NameParameters, frozen=True):
    force: bool | None = None


class ListParameters(Parameters, frozen=True):
    all: bool | None = None


_Word = Annotated[str, msgspec.Meta(max_length=32 << 10)]
_Size = Annotated[int, msgspec.Meta(ge=1, le=500)]


class EnterParameters(NameParameters, frozen=True):
    command: Annotated[list[_Word], msgspec.Meta(max_length=256)] | None = None
    environment: Annotated[list[_Word], msgspec.Meta(max_length=256)] | None = None
    rows: _Size | None = None
    columns: _Size | None = None


class SessionParameters(NameParameters, frozen=True):
    session: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class ResizeParameters(SessionParameters, frozen=True):
    rows: _Size
    columns: _Size


class LogsParameters(NameParameters, frozen=True):
    follow: bool | None = None
    tail: Annotated[int, msgspec.Meta(ge=0, le=10**9)] | None = None
    since: Annotated[float, msgspec.Meta(ge=0, le=2**40)] | None = None
    timestamps: bool | None = None
