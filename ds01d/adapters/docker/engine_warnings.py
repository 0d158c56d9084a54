"""The warnings about an engine that answers, in words. Pure."""

from __future__ import annotations

from ds01d.adapters.docker.engine_info import EngineInfo
from ds01d.adapters.docker.event_stream import EventStream
from ds01d.model.containers import EngineWarning, EngineWarningKind


def collect_warnings(info: EngineInfo, stream: EventStream) -> tuple[EngineWarning, ...]:
    """All that there are now."""
    warnings = []
    if not info.id:
        warnings.append(warn_no_lasting_id(info.root_dir))
    if (interval_s := stream.cut_interval_s()) is not None:
        warnings.append(warn_stream_cut(interval_s, bridged=stream.was_bridged))
    if stream.refusal:
        warnings.append(warn_stream_refused(stream.refusal))
    if stream.loses_events:
        warnings.append(warn_stream_lossy())
    return tuple(warnings)


def warn_no_lasting_id(root_dir: str) -> EngineWarning:
    """Podman: the engine is identified by its data root and its storage driver."""
    return EngineWarning(
        kind=EngineWarningKind.NO_LASTING_ID,
        text="this engine has no lasting ID (Podman has a new one in each answer): it is"
        f" identified by {root_dir}, its inode and its storage driver alone",
        fix="none needed for Podman; let no other engine use that data root",
    )


def warn_stream_cut(interval_s: float, *, bridged: bool) -> EngineWarning:
    """`bridged`: the events of the gaps could be fetched afterwards, so waiting times went on."""
    text = f"the stream of Docker's events is cut every {interval_s:.3g} s"
    if not bridged:
        text += ", and the events in between are lost: waiting times start again each time"
    return EngineWarning(
        kind=EngineWarningKind.STREAM_CUT,
        text=text,
        fix="raise the idle timeout of the proxy (nginx: proxy_read_timeout; HAProxy,"
        " as in docker-socket-proxy: timeout client and timeout server), or set docker.url to the"
        " engine's own socket",
    )


def warn_stream_lossy() -> EngineWarning:
    """Lists show changes of which the stream, though open, has brought no event."""
    return EngineWarning(
        kind=EngineWarningKind.STREAM_LOSSY,
        text="the stream of Docker events loses some of them, or brings them late:"
        " changes are seen at the next sweep only",
        fix="turn off response buffering in the proxy (nginx: proxy_buffering off), or set"
        " docker.url to the engine's own socket",
    )


def warn_stream_refused(reason: str) -> EngineWarning:
    """The engine answers other calls, but refuses the stream of events."""
    return EngineWarning(
        kind=EngineWarningKind.STREAM_REFUSED,
        text=f"no stream of Docker events ({reason}): changes are seen at the next sweep only",
        fix="allow GET /events in the proxy (docker-socket-proxy: EVENTS=1)",
    )
