"""Metrics as text, read as Prometheus reads them."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

Series = tuple[str, frozenset[tuple[str, str]]]

ZEROS_APART: Final = ("ds01d_process_", "ds01d_build_info")


def families(text: bytes) -> Mapping[str, Metric]:
    """Every metric by its name as written, "_total" of counters included."""
    found = {}
    for family in text_string_to_metric_families(text.decode("utf-8")):
        found[family.name + ("_total" if family.type == "counter" else "")] = family
    return found


def samples(text: bytes) -> Mapping[Series, float]:
    """Every series with its value; none comes twice."""
    found: dict[Series, float] = {}
    for family in families(text).values():
        for sample in family.samples:
            series = (sample.name, frozenset(sample.labels.items()))
            assert series not in found, f"twice: {series}"
            found[series] = sample.value
    return found


def value(text: bytes, name: str, **labels: str) -> float:
    """The value of one series, named in full."""
    return samples(text)[f"ds01d_{name}", frozenset(labels.items())]


def fetch(
    port: int, path: str = "/metrics", *, host: str = "127.0.0.1", method: str = "GET"
) -> tuple[int, bytes]:
    """Ask a listener: status and body."""
    connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
