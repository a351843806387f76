"""Draws the dashboard with matplotlib, where there is no Grafana: python deploy/grafana/draw.py --output x.png.

Asks a Prometheus for every panel's queries over the last minutes, as Grafana would, and lays them out in the same grid.
"""

import argparse
import json
import re
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.gridspec import GridSpec

DASHBOARD = Path(__file__).parent / "dashboards/horngate.json"
UNITS = {
    "s": "s",
    "percentunit": "share",
    "bytes": "bytes",
    "reqps": "requests/s",
    "rowsps": "rows/s",
    "bool": "",
    "short": "",
}


def ask(prometheus: str, query: str, minutes: float) -> list[Any]:
    """Ask for the last minutes, a value every five seconds."""
    end = time.clock_gettime(time.CLOCK_REALTIME)
    query = query.replace("$__rate_interval", "20s").replace("$model", ".*")
    parameters = urllib.parse.urlencode({"query": query, "start": end - minutes * 60, "end": end, "step": 5})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query_range?{parameters}", timeout=30) as response:
        result: list[Any] = json.loads(response.read())["data"]["result"]
        return result


def legend(template: str, labels: dict[str, str]) -> str:
    """Fill a legend's ``{{label}}``s."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), template)


def draw(panel: dict[str, Any], axes: Any, prometheus: str, minutes: float) -> None:
    """Draw one panel: lines, or a table of what is true now."""
    axes.set_title(panel["title"], loc="left", fontsize=9, fontweight="bold")
    table = panel["type"] == "table"
    texts = []
    for target in panel["targets"]:
        for series in ask(prometheus, target["expr"], minutes):
            name = legend(target["legendFormat"], series["metric"])
            times, values = zip(*((float(at), float(value)) for at, value in series["values"]), strict=True)
            texts.append(name)
            if not table:
                axes.plot([at - times[-1] for at in times], values, label=name, linewidth=1)
    if table:
        axes.set_axis_off()
        lines = "\n".join(text if len(text) < 62 else text[:59] + "..." for text in texts[:10])
        axes.text(0, 0.95, lines or "nothing", va="top", fontsize=7, transform=axes.transAxes)
        return
    unit = panel["fieldConfig"]["defaults"]["unit"]
    axes.set_ylabel(UNITS.get(unit, unit), fontsize=7)
    axes.tick_params(labelsize=7)
    axes.set_ylim(bottom=panel["fieldConfig"]["defaults"].get("min"))
    axes.grid(alpha=0.3)
    if texts:
        axes.legend(fontsize=6, ncols=2 if len(texts) > 5 else 1, loc="upper left", framealpha=0.6)
    else:
        axes.text(0.5, 0.5, "no data", ha="center", transform=axes.transAxes)


def main() -> int:
    """Draw all panels into one picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prometheus", default="http://localhost:9090", metavar="URL")
    parser.add_argument("--minutes", type=float, default=5, metavar="N")
    parser.add_argument("--sections", type=int, metavar="N", help="only the first N of them")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.png")
    asked = parser.parse_args()
    panels = json.loads(DASHBOARD.read_text())["panels"]
    ends = [*(at for at, panel in enumerate(panels) if at and panel["type"] == "row"), len(panels)]
    panels = panels[: ends[(asked.sections or len(ends)) - 1]]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(18, height * 0.36), layout="constrained")
    grid = GridSpec(height, 24, figure=figure)
    for panel in panels:
        place = panel["gridPos"]
        cell = grid[place["y"] : place["y"] + place["h"], place["x"] : place["x"] + place["w"]]
        axes = figure.add_subplot(cell)
        if panel["type"] == "row":
            axes.set_axis_off()
            axes.text(0, 0.5, panel["title"], fontsize=13, fontweight="bold", va="center", transform=axes.transAxes)
        else:
            draw(panel, axes, asked.prometheus, asked.minutes)
    figure.savefig(asked.output, dpi=75)
    return 0


if __name__ == "__main__":
    sys.exit(main())
