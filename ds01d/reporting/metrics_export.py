"""Where the metrics go: the listener and the textfile, as the configuration has them now.

What fails is tried again and again, and harms nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from ds01d.config import MetricsConfig
from ds01d.reporting.metrics_file import Textfile
from ds01d.reporting.metrics_server import MetricsServer


class _Exporter(Protocol):
    def start(self) -> None: ...
    def close(self) -> None: ...


class Exports:
    """What carries the metrics out.

    `render` gives b"" where there is nothing to tell. `tell` hears what fails and why, again and
    again, and "" for what works or is not wanted any more; in any thread.
    """

    def __init__(
        self, render: Callable[[], bytes], report_failure: Callable[[str, str], None]
    ) -> None:
        self._render, self._report_failure = render, report_failure
        self._running: dict[str, _Exporter] = {}

    def apply_config(self, wanted: MetricsConfig) -> None:
        """Start what is wanted and does not run, end what is not wanted any more."""
        makers = self._list_exporters(wanted)
        for target in self._running.keys() - makers.keys():
            self._running.pop(target).close()
            self._report_failure(target, "")
        for target in makers.keys() - self._running.keys():
            self._running[target] = makers[target]()
            self._running[target].start()

    def close(self) -> None:
        """End all of it."""
        self.apply_config(MetricsConfig())

    def _list_exporters(self, wanted: MetricsConfig) -> Mapping[str, Callable[[], _Exporter]]:
        makers: dict[str, Callable[[], _Exporter]] = {}
        address = wanted.address
        if address is not None:
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
