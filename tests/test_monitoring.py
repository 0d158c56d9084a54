"""What lies in `monitoring/` and in docs/metrics.md, held against the metrics that there are."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from ds01d.reporting.metric_values import MetricsSnapshot, Totals
from ds01d.reporting.metrics import Metrics
from tests.support.metrics import families
from tests.support.status import published

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "monitoring"
RULES = tuple(FOLDER / f"ds01d.{name}.yml" for name in ("rules", "fleet.rules"))
RULE_TESTS = tuple(FOLDER / f"ds01d.{name}.test.yml" for name in ("rules", "fleet.rules"))
DASHBOARD = FOLDER / "ds01d.dashboard.json"

HOST_OWN = {"gpu", "profile", "version", "python", "instance", "job", "le"}  # words are not ours
SERIES = re.compile(r"\b(ds01d_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
Labels = Mapping[str, frozenset[str]]


@pytest.fixture(scope="module")
def known() -> Mapping[str, Labels]:
    """Each name that a sample can have, with the words of its labels."""
    reading = MetricsSnapshot(
        status=published(),
        drifts=(),
        totals=Totals(),
        depth=0,
        running_s=0.0,
        stream_open=True,
        inventory_frozen=False,
    )
    found: dict[str, dict[str, set[str]]] = {}
    for family in families(Metrics("1").render(reading)).values():
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, word in sample.labels.items():
                labels.setdefault(label, set()).add(word)
    return {
        name: {label: frozenset(words) for label, words in labels.items()}
        for name, labels in found.items()
    }


def test_no_name_is_one_of_the_labs_exporter(known: Mapping[str, Labels]) -> None:
    """The lab's own exporter has the prefix `ds01_`."""
    assert {name for name in known if name.startswith("ds01_")} == set()
    assert any(name.startswith("ds01d_") for name in known)


def promtool(*arguments: object) -> str:
    command = ["promtool", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> list[dict[str, Any]]:
    documents = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in RULES]
    groups = [group for document in documents for group in document["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def dashboard_queries() -> Iterator[str]:
    """Every query of the dashboard, with what Grafana puts in."""

    def walk(part: object) -> Iterator[str]:
        if isinstance(part, dict):
            yield from (str(part[key]) for key in ("expr", "query") if key in part)
            for value in part.values():
                yield from walk(value)
        elif isinstance(part, list):
            for value in part:
                yield from walk(value)

    for query in walk(json.loads(DASHBOARD.read_text(encoding="utf-8"))):
        if "ds01d_" in query:
            yield query.replace("$__rate_interval", "5m")


def expressions() -> list[str]:
    return [str(rule["expr"]) for rule in rules()] + list(dashboard_queries())


def test_the_rules_are_sound_and_do_what_their_tests_say() -> None:
    assert "SUCCESS" in promtool("check", "rules", *(file.name for file in RULES))
    assert "SUCCESS" in promtool("test", "rules", *(file.name for file in RULE_TESTS))


def test_the_queries_of_the_dashboard_are_sound(tmp_path: Path) -> None:
    queries = [query for query in dashboard_queries() if not query.startswith(("label_", "{"))]
    assert len(queries) > 30
    file = tmp_path / "queries.yml"
    recorded = [{"record": f"q{n}", "expr": query} for n, query in enumerate(queries)]
    file.write_text(json.dumps({"groups": [{"name": "g", "rules": recorded}]}), encoding="utf-8")
    promtool("check", "rules", file)


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_every_metric_label_and_word_that_is_asked_for_is_there(
    expression: str, known: Mapping[str, Labels]
) -> None:
    asked = SERIES.findall(expression)
    for name, matchers in asked:
        assert name in known, name
        for label, how, word in MATCHER.findall(matchers):
            if label in HOST_OWN:
                continue
            assert label in known[name], f"{name} has no label {label}"
            if how in {"=", "!="}:
                assert word in known[name][label], f"{name} never has {label}={word}"
    others = {"up", "node_textfile_mtime_seconds"}
    assert asked or any(name in expression for name in others), expression


def test_every_recorded_series_that_the_dashboard_shows_is_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    shown = set(
        re.findall(r'"expr": "[^"]*?(\w*:?ds01d[_\w]*:\w+(?::\w+)?)', DASHBOARD.read_text())
    )
    assert len(shown) >= 3
    assert shown <= recorded


def test_every_metric_is_shown_or_watched(known: Mapping[str, Labels]) -> None:
    """What neither an alert nor the dashboard asks for, and why it is there."""
    asked = {name for expression in expressions() for name, _ in SERIES.findall(expression)}
    unasked = {re.sub(r"_(bucket|sum|count)$", "", name) for name in known.keys() - asked}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    assert unasked - shown == {
        "ds01d_last_sweep_duration_seconds",  # for whoever looks into a slow sweep
        "ds01d_source_last_success_timestamp_seconds",  # since when, once an alert fires
        "ds01d_process_virtual_memory_bytes",  # these three come with the client
        "ds01d_process_open_fds",
        "ds01d_process_max_fds",
        "ds01d_notices_total",  # how many, for whoever asks
        "ds01d_slots_idle_since_timestamp_seconds",  # beside the finding, for whoever asks
    }


def test_every_alert_says_what_is_wrong_and_where_to_read_on() -> None:
    runbook = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    tests = "".join(file.read_text(encoding="utf-8") for file in RULE_TESTS)
    assert "## Alerts" in runbook
    for alert in alerts():
        name, notes = alert["alert"], alert["annotations"]
        assert set(notes) == {"summary", "description", "runbook_url"}, name
        assert notes["runbook_url"].endswith("/operations.md#alerts")
        assert alert["labels"]["severity"] in {"warning", "critical"}
        assert f"`{name}`" in runbook, f"{name} is missing in docs/operations.md"
        assert name in tests, f"{name} has no test"
    named = set(re.findall(r"`(Ds01d\w+)`", runbook))
    assert named == {alert["alert"] for alert in alerts()}


def test_the_document_lists_exactly_these_metrics() -> None:
    document = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = [line for line in document.splitlines() if line.startswith("| `ds01d_")]
    wanted = []
    reading = MetricsSnapshot(
        status=published(),
        drifts=(),
        totals=Totals(),
        depth=0,
        running_s=0.0,
        stream_open=True,
        inventory_frozen=False,
    )
    for name, family in families(Metrics("1").render(reading)).items():
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        shown = ", ".join(f"`{label}`" for label in labels)
        wanted.append(f"| `{name}` | {family.type} | {shown} | {family.documentation} |")
    assert rows == [re.sub(r"\|  +\|", "| |", row) for row in wanted]


def test_the_document_lists_exactly_these_words(known: Mapping[str, Labels]) -> None:
    document = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    table = document.partition("## The labels")[2].partition("\n## ")[0]
    told: dict[str, set[str]] = {}
    for label, words in re.findall(r"^\| `(\w+)`[^|]*\| (.*) \|$", table, re.MULTILINE):
        told.setdefault(label, set()).update(re.findall(r"`([\w-]+)`", words))
    there: dict[str, set[str]] = {}
    for labels in known.values():
        for label, words in labels.items():
            there.setdefault(label, set()).update(words)
    assert told.keys() == there.keys() - {"le", "version", "python"}
    for label in told.keys() - {"gpu", "profile", "kind"}:
        assert told[label] == there[label], label


# Its library is for Python 3.11 and later.
@pytest.mark.python_neutral
def test_the_dashboard_is_one_by_grafanas_own_types() -> None:
    """No registry has Grafana itself. Its SDK has the types of the version of `schemaVersion`.

    Newer versions migrate a dashboard of it.
    """
    written = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    assert written["schemaVersion"] == 38
    # Prometheus' own plugin knows that one: the text of the annotation.
    assert [*find_losses(written, write_again(written))] == [".annotations.list[0].titleFormat"]


@pytest.mark.python_neutral
@pytest.mark.parametrize(
    ("key", "wrong"), [("expr", "exrp"), ("gridPos", "gridpos"), ("unit", "units")]
)
def test_a_dashboard_with_a_wrong_key_would_be_found(key: str, wrong: str) -> None:
    text = DASHBOARD.read_text(encoding="utf-8")
    assert f'"{key}": ' in text
    changed = json.loads(text.replace(f'"{key}": ', f'"{wrong}": ', 1))
    losses = [*find_losses(changed, write_again(changed))]
    assert any(place.endswith(f".{wrong}") for place in losses), losses


def write_again(document: object) -> object:
    """A dashboard as Grafana's SDK has understood it, queries and panels included."""
    # By name: they have no types for mypy.
    import_module("grafana_foundation_sdk.cog.plugins").register_default_plugins()
    encoder = import_module("grafana_foundation_sdk.cog.encoder").JSONEncoder()
    model = import_module("grafana_foundation_sdk.models.dashboard").Dashboard
    again: object = json.loads(encoder.encode(model.from_json(document)))
    return again


def find_losses(written: object, again: object, path: str = "") -> Iterator[str]:
    """The places at which something is missing or another in `again`."""
    if isinstance(written, dict) and isinstance(again, dict):
        for key, value in written.items():
            yield from find_losses(value, again.get(key), f"{path}.{key}")
    elif isinstance(written, list) and isinstance(again, list) and len(written) == len(again):
        for number, pair in enumerate(zip(written, again, strict=True)):
            yield from find_losses(*pair, f"{path}[{number}]")
    elif written != again:
        yield path
