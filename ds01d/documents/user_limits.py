"""What the limits give the user of a container, as a document, for `explain`."""

from __future__ import annotations

from fractions import Fraction

from ds01d.decide.idleness import find_idle_rule
from ds01d.decide.index import BooksIndex
from ds01d.documents.values import Section
from ds01d.model.container_labels import ContainerType
from ds01d.model.limits import EXEMPTION_KEYS, GpuQuota, Limits
from ds01d.model.primitives import ContainerName, Unknown, UserName, Wall
from ds01d.text import format_span


def limits_section(name: ContainerName, index: BooksIndex) -> Section:
    """The hold and the priority of a container's user; in the present format all they may have."""
    limits = index.limits
    if isinstance(limits, Unknown):
        return {"unknown": limits.reason}
    user = index.find_user(name)
    container = index.containers.get(name)
    type_ = None if container is None else container.type
    rule = limits.find_hold(user, type_)
    section: Section = {
        "user": user,
        "hold_after_stop": _describe_hold(rule.seconds),
        "from": rule.source,
        "problem": rule.problem,
        "priority": limits.find_priority(user),
        "reported_when_idle_for": _describe_end(find_idle_rule(user, index).seconds),
    }
    quota = None if user is None else limits.find_gpu_quota(user)
    # Decision 221: without one the file has the older format, which has none of this.
    if user is not None and quota is not None:
        section |= _describe_quota(quota)
        section |= _describe_scripts(user, type_, limits, index.snapshot.now.wall)
    return section


def _describe_quota(quota: GpuQuota) -> Section:
    return {
        "max_gpu_equivalents": _describe_number(quota.gpus),
        "aggregate_gpu_limit": _describe_number(quota.aggregate),
        "max_slots_per_container": _describe_number(quota.slots_per_container),
        "whole_gpus": quota.whole_gpus,
    }


def _describe_scripts(
    user: UserName, type_: ContainerType | None, limits: Limits, now: Wall
) -> Section:
    """When the lab's scripts stop and remove the container, which ds01d never does."""
    lifecycle = limits.find_lifecycle(user, type_)
    exempt = [key for key in EXEMPTION_KEYS if limits.find_exemption(user, key, now) is not None]
    return {
        "group": limits.find_group(user),
        "scripts_stop_it_idle_for": _describe_end(lifecycle.idle_timeout_s),
        "scripts_stop_it_after": _describe_end(lifecycle.max_runtime_s),
        "scripts_remove_it_stopped_for": _describe_end(lifecycle.removal_after_stop_s),
        "exempt_from": exempt,
    }


def _describe_hold(seconds: float | None) -> str:
    return "for ever" if seconds is None else format_span(seconds)


def _describe_end(seconds: float | None) -> str:
    return "never" if seconds is None else format_span(seconds)


def _describe_number(number: Fraction | int | None) -> str:
    return "unlimited" if number is None else f"{float(number):g}"
