"""Writes dashboards/horngate.json from the panels below; --check fails where the file is not what it would write."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "dashboards/horngate.json"
ONE = '{job="horngate",model=~"$model"}'
ALL = '{job="horngate"}'
RATE = "[$__rate_interval]"
PROCESS = "{{instance}} {{worker}}"
OURS = 'code=~"INTERNAL|UNAVAILABLE|RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED|UNKNOWN"'

FAILED = (
    f"(sum(rate(horngate_requests_total{{{OURS},{ONE[1:]}{RATE})) or vector(0)) "
    f"/ sum(rate(horngate_requests_total{ONE}{RATE}))"
)
SHARES = (
    f"sum by (class) (rate(horngate_predicted_class_total{ONE}{RATE})) "
    f"/ on() group_left() sum(rate(horngate_predicted_class_total{ONE}{RATE}))"
)

REPLACED = f"sum by (instance, reason) (increase(horngate_worker_restarts_total{ALL}{RATE})) or vector(0)"

FILLED = (
    f"max by (priority) (horngate_queue_rows{ONE} "
    f"/ on(instance, worker, model, version) group_left() horngate_queue_capacity_rows{ONE})"
)


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: what it is called.
        unit: as Grafana names units.
        lines: per line its query and its legend.
        text: what it says, and what to make of it.
        width: in the grid's 24 columns.
        kind: Grafana's name for the panel.
        least: where the axis begins; None leaves it to the values, which may be negative.
    """

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    text: str
    width: int = 8
    kind: str = "timeseries"
    least: float | None = 0


def quantiles(metric: str, what: str = "") -> tuple[tuple[str, str], ...]:
    """Return the queries for three quantiles of a histogram."""
    return tuple(
        (f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{ONE}{RATE})))", f"{what}p{share * 100:g}")
        for share in (0.5, 0.9, 0.99)
    )


def mean(metric: str) -> str:
    """Return the query for a histogram's mean."""
    return f"sum(rate({metric}_sum{ONE}{RATE})) / sum(rate({metric}_count{ONE}{RATE}))"


SECTIONS: dict[str, tuple[Panel, ...]] = {
    "Traffic": (
        Panel("Requests by code", "reqps", ((f"sum by (code) (rate(horngate_requests_total{ONE}{RATE}))", "{{code}}"),),
              "Answered inference requests a second."),
        Panel("Rows by version", "rowsps",
              ((f"sum by (model, version) (rate(horngate_rows_total{ONE}{RATE}))", "{{model}} {{version}}"),),
              "What the models computed for callers."),
        Panel("Failed by our fault", "percentunit",
              ((FAILED, "share"),),
              "INTERNAL, UNAVAILABLE, RESOURCE_EXHAUSTED and DEADLINE_EXCEEDED among all answers."),
        Panel("Refused by reason", "reqps",
              ((f"sum by (reason) (rate(horngate_refused_total{ALL}{RATE}))", "{{reason}}"),),
              "Never computed. unauthenticated and forbidden: somebody tries doors."),
        Panel("Protocols", "reqps",
              ((f"sum by (protocol) (rate(horngate_requests_total{ONE}{RATE}))", "{{protocol}}"),), "Who speaks what."),
        Panel("In flight", "short", ((f"sum by (instance) (horngate_requests_in_flight{ALL})", "{{instance}}"),),
              "Requests not answered yet."),
    ),
    "Latency": (
        Panel("Whole request", "s", quantiles("horngate_request_seconds"), "From a request's arrival to its answer."),
        Panel("In the queue", "s", quantiles("horngate_queue_seconds"), "Until its first batch began. More than the "
              "computing: add replicas, or mark bulk work as such."),
        Panel("Computing a batch", "s", quantiles("horngate_batch_seconds"), "Joining, computing, splitting."),
    ),
    "Batches and queue": (
        Panel("Rows in a batch", "short", (*quantiles("horngate_batch_rows"), (mean("horngate_batch_rows"), "mean")),
              "Large batches are the server's way to keep up with load.", 6),
        Panel("Rows waiting", "short", ((f"sum by (priority) (horngate_queue_rows{ONE})", "{{priority}}"),),
              "Of all replicas.", 6),
        Panel("Queue filled", "percentunit",
              ((FILLED, "{{priority}}"),),
              "The fullest of all: at 1, requests are refused.", 6),
        Panel("Busy", "percentunit",
              ((f"sum by (instance, worker, model) (rate(horngate_batch_seconds_sum{ONE}{RATE}))",
              "{{instance}} {{worker}} {{model}}"),),
              "Share of the time in which the model computes: at 1, the queue grows.", 6),
    ),
    "Versions": (
        Panel("States", "short",
              ((f"horngate_model_state{ONE} == 1", "{{instance}} {{model}} {{version}}: {{state}}"),),
              "What every version is: loading, ready, draining, failed, ended.", 8, "table"),
        Panel("Why", "short",
              ((f"horngate_model_state_reason_info{ONE}", "{{model}} {{version}}: {{reason}}"),),
              "Of versions that are not served.", 8, "table"),
        Panel("Device", "short", ((f"horngate_device_info{ONE}", "{{instance}} {{model}}: {{device}}, {{why}}"),),
              "Where each version computes, and why there.", 8, "table"),
        Panel("Time to load", "s", ((f"horngate_model_load_seconds{ONE}", "{{instance}} {{model}} {{version}}"),),
              "Loading, verifying and warming."),
        Panel("Memory of a version", "bytes",
              ((f"horngate_model_memory_bytes{ONE}", "{{instance}} {{model}} {{version}}"),),
              "What it took when it was loaded."),
        Panel("Configuration is good", "bool", ((f"horngate_config_valid{ALL}", "{{instance}}"),), "0: see the log."),
    ),
    "Drift": (
        Panel("Classes chosen (PSI)", "short", ((f"max by (model, version) (horngate_prediction_psi{ONE})",
              "{{model}} {{version}}"),), "Against the baseline: 0.1 is something, 0.25 is a lot."),
        Panel("Confidence", "percentunit",
              ((f"avg by (version) (horngate_prediction_confidence_mean{ONE})", "{{version}} now"),
               (f"avg by (version) (horngate_baseline_confidence_mean{ONE})", "{{version}} test data")),
              "Mean of the highest probability."),
        Panel("Inputs' mean", "short",
              ((f"avg by (version) (horngate_input_mean{ONE})", "{{version}} now"),
               (f"avg by (version) (horngate_baseline_input_mean{ONE})", "{{version}} training")),
              "Far apart: somebody prepares inputs in another way.", least=None),
        Panel("Classes", "percentunit",
              ((SHARES, "{{class}}"),),
              "Shares of the answers.", 12),
        Panel("Inputs look wrong", "bool", ((f"max by (model, version, as) (horngate_input_suspect{ONE})",
              "{{model}} {{version}} {{as}}"),), "1: as if prepared in that way.", 12),
    ),
    "Process": (
        Panel("Up", "bool", ((f"up{ALL}", "{{instance}}"),), "0: Prometheus cannot reach it."),
        Panel("CPU", "short", ((f"rate(process_cpu_seconds_total{ALL}{RATE})", PROCESS),), "Cores."),
        Panel("Memory", "bytes", ((f"process_resident_memory_bytes{ALL}", PROCESS),), "Resident."),
        Panel("Open files", "short", ((f"process_open_fds{ALL}", PROCESS),), "Connections are among them.", 12),
        Panel("Workers replaced", "short", ((REPLACED, "{{instance}} {{reason}}"),),
              "With --workers: those that crashed, hung, or could not be started.", 12),
    ),
}  # fmt: skip


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for section, members in SECTIONS.items():
        place = {"x": 0, "y": y, "w": 24, "h": 1}
        panels.append({"type": "row", "title": section, "collapsed": False, "gridPos": place, "panels": []})
        y, x = y + 1, 0
        for panel in members:
            if x + panel.width > 24:
                x, y = 0, y + 8
            panels.append(_panel(panel, x, y))
            x += panel.width
        y += 8
    for number, each in enumerate(panels, 1):
        each["id"] = number
    return {
        "uid": "horngate", "title": "Horngate", "tags": ["horngate"], "schemaVersion": 39, "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"}, "editable": False, "graphTooltip": 1,
        "templating": {"list": [{
            "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
        }, {
            "name": "model", "label": "Model", "type": "query", "datasource": _SOURCE, "includeAll": True,
            "allValue": ".*", "current": {"text": "All", "value": "$__all"}, "refresh": 2,
            "query": {"query": 'label_values(horngate_model_state{job="horngate"}, model)', "refId": "models"},
        }]},
        "panels": panels,
    }  # fmt: skip


_LEGEND = {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": ["lastNotNull", "max"]}
_HIDDEN = {"excludeByName": dict.fromkeys(("Time", "Value", "__name__", "job"), True)}
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def _panel(panel: Panel, x: int, y: int) -> dict[str, Any]:
    table = panel.kind == "table"
    defaults: dict[str, Any] = {"unit": panel.unit}
    if not table:
        defaults["custom"] = {"fillOpacity": 8, "lineWidth": 1, "showPoints": "never"}
    if not table and panel.least is not None:
        defaults["min"] = panel.least
    return {
        "type": panel.kind, "title": panel.title, "description": panel.text, "datasource": _SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": 8},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {} if table else {"legend": _LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}},
        "transformations": [{"id": "organize", "options": _HIDDEN}] if table else [],
        "targets": [
            {"refId": chr(65 + place), "expr": query, "legendFormat": legend, "datasource": _SOURCE,
             **({"format": "table", "instant": True} if table else {})}
            for place, (query, legend) in enumerate(panel.lines)
        ],
    }  # fmt: skip


def main() -> int:
    """Write the file, or compare."""
    text = json.dumps(dashboard(), indent=1) + "\n"
    if sys.argv[1:] == ["--check"]:
        if FILE.read_text() != text:
            print("deploy/grafana/dashboards/horngate.json is not what make.py writes: run it", file=sys.stderr)
            return 1
        return 0
    FILE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
