"""Answers about usage and quotas out of the files, for commands and for the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ds01d.bootstrap_books import BooksOnly, open_books
from ds01d.config import Config

if TYPE_CHECKING:
    from ds01d.documents.quota import QuotaDocument
    from ds01d.documents.usage_report import UsageReport
    from ds01d.model.accounting import ReportQuery


def read_usage(config: Config, query: ReportQuery) -> UsageReport:
    """A report of the accounting. Raises `Refused` where there is none yet, or no group is known.

    Also what cannot be read is raised, as a `Ds01Error`.
    """
    from ds01d.adapters.accounting_reader import open_reader  # noqa: PLC0415 - others need none
    from ds01d.documents.usage_report import build_usage_report  # noqa: PLC0415
    from ds01d.errors import Refused  # noqa: PLC0415
    from ds01d.model.accounting import ReportSubject  # noqa: PLC0415
    from ds01d.model.limits import Limits  # noqa: PLC0415

    limits = BooksOnly(config).limits.read()
    by_group = query.group is not None or query.by is ReportSubject.GROUP
    if not isinstance(limits, Limits) and by_group:
        raise Refused(f"no group is known: {limits.reason}")
    with open_reader(config.daemon.state_dir) as reader:
        if reader is None:
            raise Refused("there is no accounting yet: ds01d begins it with its first pass")
        find_group = limits.find_group if isinstance(limits, Limits) else lambda _: ""
        return build_usage_report(reader, query, find_group)


def read_quota(config: Config, user: str) -> QuotaDocument:
    """The quota of a user, by the files: what waits only ds01d knows. Raises `Refused`."""
    from dataclasses import replace  # noqa: PLC0415 - others need none

    from ds01d.decide.quota_status import find_quota_status  # noqa: PLC0415
    from ds01d.documents.quota import build_quota_document  # noqa: PLC0415
    from ds01d.errors import Refused  # noqa: PLC0415
    from ds01d.model.limits import Limits  # noqa: PLC0415
    from ds01d.model.primitives import UserName  # noqa: PLC0415
    from ds01d.model.quota import OtherHostsUse  # noqa: PLC0415
    from ds01d.reconcile.transactions import Transactions  # noqa: PLC0415

    with open_books(config) as world:
        limits = world.limits.read()
        if not isinstance(limits, Limits):
            raise Refused(f"cannot read the limits: {limits.reason}")
        books = Transactions(world).read_books()
        status = find_quota_status(UserName(user), limits, books.state, books.records, {})
        if config.fleet.etcd:
            # Decision 345: unknown is shown, and never left out as if it were nothing.
            unknown = OtherHostsUse(problem="only ds01d knows it, and cannot be asked")
            status = replace(status, other_hosts=unknown)
        return build_quota_document(status)
