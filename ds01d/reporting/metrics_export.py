"""Starts and stops the exports of the metrics: the listener and the textfile.

A failing export is retried and stops nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from ds01d.config import MetricsConfig
from ds01d.reporting.metrics_file import Textfile


class _Exporter(Protocol):
    def start(self) -> None: ...
    def close(self) -> None: ...


class Exports:
    """The running exports.

    `render` gives b"" without metrics. `report_failure(export, reason)` is called in any thread,
    repeatedly, with "" once the export works or is stopped.
    """

    def __init__(
        self, render: Callable[[], bytes], report_failure: Callable[[str, str], None]
    ) -> None:
        self._render, self._report_failure = render, report_failure
        self._running: dict[str, _Exporter] = {}

    def apply_config(self, wanted: MetricsConfig) -> None:
        """Start the configured exports that do not run, stop the others."""
        makers = self._list_exporters(wanted)
        # Stopped first: the new listener may want the same port under another name.
        for target in self._running.keys() - makers.keys():
            self._running.pop(target).close()
            self._report_failure(target, "")
        for target in makers.keys() - self._running.keys():
            self._running[target] = makers[target]()
            self._running[target].start()

    def close(self) -> None:
        """Stop all exports."""
        self.apply_config(MetricsConfig())

    def _list_exporters(self, wanted: MetricsConfig) -> Mapping[str, Callable[[], _Exporter]]:
        makers: dict[str, Callable[[], _Exporter]] = {}
        address = wanted.address
        if address is not None:
            from ds01d.reporting.metrics_server import MetricsServer  # noqa: PLC0415 - as metrics

            at = f"the metrics at {wanted.listen}"
            makers[at] = lambda: MetricsServer(
                address, self._render, partial(self._report_failure, at)
            )
        if wanted.textfile:
            file = Path(wanted.textfile)
            within = f"the metrics in {file}"
            makers[within] = lambda: Textfile(
                file, self._render, partial(self._report_failure, within)
            )
        return makers
