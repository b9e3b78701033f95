"""Dashboards as Grafana stores them, from a few words for each panel: what our dashboards share is here.

No data source is named: it is a variable, as are the cluster, the namespace and the node.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

# The last version of the classic model; what is older or newer in Grafana is brought to its own by Grafana.
_SCHEMA_VERSION = 42
_WIDTH = 24
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
NODE_UID = "basekeeper-node"
"""Where a table's nodes lead."""
_GREEN, _YELLOW, _RED = "green", "yellow", "red"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """One expression of a panel, and what its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `warn` and `alarm` colour values from there on; without them nothing is coloured."""

    title: str
    description: str
    kind: str
    unit: str
    queries: tuple[Query, ...]
    width: int = 12
    height: int = 8
    warn: float | None = None
    alarm: float | None = None
    minimum: float | None = 0
    maximum: float | None = None
    stacked: bool = False
    columns: tuple[tuple[str, str, str], ...] = ()
    """Of a table: a label or `Value #A`, its heading, and its unit."""
    values: tuple[tuple[str, str, str], ...] = ()
    """Values that are words: the value, the word, its colour."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of a dashboard, asked of the data source."""

    name: str
    label: str
    query: str
    every: bool = True
    """Whether all of its values together are a choice, and the first one."""


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and its panels."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard."""

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]
    links: Sequence[tuple[str, str]] = field(default=())
    """Titles and uids of dashboards beside this one."""

    def text(self) -> str:
        """The file that Grafana imports."""
        return json.dumps(self._model(), indent=2, ensure_ascii=False) + "\n"

    def _model(self) -> Json:
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["basekeeper", "openstack"],
            "schemaVersion": _SCHEMA_VERSION,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "1m",
            "time": {"from": "now-24h", "to": "now"},
            "timezone": "browser",
            "annotations": {"list": []},
            "links": [
                {"title": title, "type": "link", "url": f"/d/{uid}", "includeVars": True, "keepTime": True}
                for title, uid in self.links
            ],
            "templating": {"list": [_datasource_variable(), *map(_variable, self.variables)]},
            "panels": _placed(self.rows),
        }


def _datasource_variable() -> Json:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "regex": "",
        "hide": 0,
    }


def _variable(variable: Variable) -> Json:
    return {
        "name": variable.name,
        "label": variable.label,
        "type": "query",
        "datasource": _DATASOURCE,
        "query": {"query": variable.query, "refId": variable.name},
        "definition": variable.query,
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "regex": "",
        "multi": variable.every,
        "includeAll": variable.every,
        # A cluster whose series have no such label at all is chosen too.
        **({"allValue": ".*", "current": {"text": "All", "value": "$__all"}} if variable.every else {}),
    }


def _placed(rows: Sequence[Row]) -> list[Json]:
    """Panels from left to right and from top to bottom, each row under its heading."""
    placed: list[Json] = []
    y = 0
    for row in rows:
        placed.append(
            {"id": len(placed) + 1, "type": "row", "title": row.title, "collapsed": False, "panels": [],
             "gridPos": {"x": 0, "y": y, "w": _WIDTH, "h": 1}}
        )  # fmt: skip
        x, y, tallest = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > _WIDTH:
                x, y, tallest = 0, y + tallest, 0
            place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            placed.append({"id": len(placed) + 1, "gridPos": place, **_panel(panel)})
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return placed


def _panel(panel: Panel) -> Json:
    table = panel.kind == "table"
    made: Json = {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "targets": [_target(query, chr(ord("A") + place), panel) for place, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": [_column(*it) for it in panel.columns]},
        "options": _OPTIONS[panel.kind],
    }
    if table:
        made["transformations"] = _one_row_each(panel)
        first = panel.columns[1][1]
        made["options"] = {**_OPTIONS["table"], "sortBy": [{"displayName": first, "desc": True}]}
    return made


def _target(query: Query, ref: str, panel: Panel) -> Json:
    now = panel.kind != "timeseries"
    return {
        "refId": ref,
        "datasource": _DATASOURCE,
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "instant": now,
        "range": not now,
        "format": "table" if panel.kind == "table" else "time_series",
    }


def _defaults(panel: Panel) -> Json:
    steps: list[Json] = [{"color": _GREEN, "value": None}]
    steps += [{"color": colour, "value": at} for colour, at in ((_YELLOW, panel.warn), (_RED, panel.alarm)) if at]
    coloured = len(steps) > 1
    made: Json = {
        "unit": panel.unit,
        "color": {"mode": "thresholds" if coloured and panel.kind != "timeseries" else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "mappings": [
            {"type": "value", "options": {value: {"text": word, "color": colour, "index": place}}}
            for place, (value, word, colour) in enumerate(panel.values)
        ],
    }
    if panel.minimum is not None:
        made["min"] = panel.minimum
    if panel.maximum is not None:
        made["max"] = panel.maximum
    if panel.kind == "timeseries":
        made["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.stacked else 10,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if coloured else "off"},
        }
    return made


def _column(source: str, heading: str, unit: str) -> Json:
    properties: list[Json] = [{"id": "displayName", "value": heading}]
    if unit:
        properties.append({"id": "unit", "value": unit})
    if source == "node":
        url = f"/d/{NODE_UID}?var-node=${{__value.raw}}&${{datasource:queryparam}}&${{cluster:queryparam}}"
        properties.append({"id": "links", "value": [{"title": "this node", "url": url}]})
    return {"matcher": {"id": "byName", "options": source}, "properties": properties}


def _one_row_each(panel: Panel) -> list[Json]:
    """The answers of all queries side by side, and only the columns that are wanted, in their order."""
    order = {source: place for place, (source, _, _) in enumerate(panel.columns)}
    merged = [{"id": "merge", "options": {}}]
    return [*merged, {"id": "filterFieldsByName", "options": {"include": {"names": list(order)}}},
            {"id": "organize", "options": {"indexByName": order}}]  # fmt: skip


_OPTIONS: dict[str, Json] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "textMode": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    },
    "bargauge": {
        "orientation": "horizontal",
        "displayMode": "basic",
        "valueMode": "color",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    },
    "table": {"showHeader": True, "cellHeight": "sm"},
}
