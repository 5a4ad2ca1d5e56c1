"""What a dashboard is made of, and Grafana's JSON of it.

Source: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["HERE", "SELECTOR", "Board", "Panel", "Query", "Row"]

HERE = "HERE"
"""Stands in the queries for the instances that the reader has chosen."""
SELECTOR = 'job=~"$job", instance=~"$instance"'
WIDTH = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
GREEN, RED = "green", "red"

Kind = Literal["timeseries", "stat", "table", "bargauge"]


@dataclass(frozen=True, kw_only=True)
class Query:
    """One line of a panel, or several with labels in their name."""

    expr: str
    """PromQL, with `HERE` in each selector of a metric of the service."""
    legend: str = ""
    """Such as `{{instance}}`."""

    def target(self, number: int, kind: Kind) -> dict[str, Any]:
        """Grafana's JSON of the number-th query of a panel."""
        is_now = kind != "timeseries"
        return {
            "refId": chr(ord("A") + number),
            "datasource": SOURCE,
            "expr": self.expr.replace(HERE, SELECTOR),
            "legendFormat": self.legend or "__auto",
            "instant": is_now,
            "range": not is_now,
            **({"format": "table"} if kind == "table" else {}),
        }


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture."""

    title: str
    description: str
    """What a reader should make of it."""
    unit: str
    """Grafana's name of a unit, such as `s` or `percentunit`."""
    queries: Sequence[Query]
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 7
    is_stacked: bool = False
    bad_above: float | None = None
    """From here on it is red; drawn as a line in a time series."""
    bad_below: float | None = None
    """Below it is red."""

    def json(self, number: int, x: int, y: int) -> dict[str, Any]:
        """Grafana's JSON of the number-th panel, at a place of the grid."""
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": SOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "targets": [query.target(i, self.kind) for i, query in enumerate(self.queries)],
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            "options": _OPTIONS[self.kind],
            **({"transformations": _WITHOUT_TIME} if self.kind == "table" else {}),
        }

    def _defaults(self) -> dict[str, Any]:
        has_line = self.bad_above is not None or self.bad_below is not None
        custom = {
            "fillOpacity": 30 if self.is_stacked else 5,
            "showPoints": "never",
            "stacking": {"mode": "normal" if self.is_stacked else "none"},
            "thresholdsStyle": {"mode": "line" if has_line else "off"},
        }
        return {
            "unit": self.unit,
            "thresholds": {"mode": "absolute", "steps": self._steps()},
            **({"custom": custom, "min": 0} if self.kind == "timeseries" else {}),
        }

    def _steps(self) -> list[dict[str, Any]]:
        steps: list[dict[str, Any]] = [{"color": GREEN, "value": None}]
        if self.bad_below is not None:
            steps = [{"color": RED, "value": None}, {"color": GREEN, "value": self.bad_below}]
        if self.bad_above is not None:
            steps.append({"color": RED, "value": self.bad_above})
        return steps


@dataclass(frozen=True, kw_only=True)
class Row:
    """Panels that belong together, from left to right."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, kw_only=True)
class Board:
    """A dashboard for one kind of reader."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]

    def panels(self) -> list[Panel]:
        """All of them."""
        return [panel for row in self.rows for panel in row.panels]

    def text(self) -> str:
        """The file."""
        return json.dumps(self._json(), indent=1, ensure_ascii=False) + "\n"

    def _json(self) -> dict[str, Any]:
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["advsentry"],
            "editable": True,
            "schemaVersion": 39,
            "refresh": "30s",
            "time": {"from": "now-6h", "to": "now"},
            "timezone": "browser",
            "links": [_LINKS],
            "templating": {"list": _VARIABLES},
            "panels": self._panels(),
        }

    def _panels(self) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        y = 0
        for row in self.rows:
            place = {"h": 1, "w": WIDTH, "x": 0, "y": y}
            made.append({"id": len(made) + 1, "type": "row", "title": row.title, "gridPos": place, "panels": []})
            y, x, tallest = y + 1, 0, 0
            for panel in row.panels:
                if x + panel.width > WIDTH:
                    y, x, tallest = y + tallest, 0, 0
                made.append(panel.json(len(made) + 1, x, y))
                x, tallest = x + panel.width, max(tallest, panel.height)
            y += tallest
        return made


_OPTIONS: Mapping[Kind, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {"colorMode": "value", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}},
    "bargauge": {"displayMode": "basic", "orientation": "horizontal", "reduceOptions": {"calcs": ["lastNotNull"]}},
    "table": {"showHeader": True},
}
_WITHOUT_TIME = [{"id": "organize", "options": {"excludeByName": {"Time": True, "Value": True, "__name__": True}}}]
_LINKS = {"type": "dashboards", "tags": ["advsentry"], "title": "advsentry", "keepTime": True, "includeVars": True}


def _variable(name: str, of: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": of, "refId": name},
        "definition": of,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


_VARIABLES = [
    {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "data source"},
    _variable("job", "label_values(advsentry_ready, job)"),
    _variable("instance", 'label_values(advsentry_ready{job=~"$job"}, instance)'),
]
