"""What became of the notices that ds01d-notify sends, for the metrics. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping

from ds01d.config import NotifyConfig
from ds01d.errors import Ds01Error
from ds01d.model.notice import DeliveryRecord, DeliveryTarget


def read_deliveries(notify: NotifyConfig) -> Mapping[DeliveryTarget, DeliveryRecord]:
    """The records of ds01d-notify; a target without a readable one is left out."""
    if not notify.uses_sender:
        return {}
    # Only where notices are on: the daemon has no other use for it.
    from ds01d.adapters.notices.delivery_file import FOLDER, read_record  # noqa: PLC0415

    records: dict[DeliveryTarget, DeliveryRecord] = {}
    for target in DeliveryTarget:
        try:
            record = read_record(notify.state_dir / FOLDER / f"{target}.json")
        except Ds01Error:
            continue  # `ds01ctl doctor` shows why
        if record is not None:
            records[target] = record
    return records
