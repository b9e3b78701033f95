"""Draws a dashboard as a plain picture: its own panels, and what a Prometheus answers to their own expressions.

It is not Grafana, and says so on the picture. It is there so that a page can show what a dashboard shows, from figures
that were measured.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

_CELL, _LINE = 50, 32
"""Pixels of a grid's cell: across, and down."""
_HEAD = 46
_MARGIN = 8
_COLOURS = ("#3f8f4f", "#3274d9", "#e0a526", "#c4392f", "#8f3bb8", "#2aa5a0", "#b56b21", "#6d7278")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")
Json = dict[str, Any]
Ask = Callable[[str, bool], list[Json]]
"""Answers an expression: with `values` over the time shown, or with one `value` of now."""


@dataclass(frozen=True, slots=True)
class _Box:
    x: float
    y: float
    width: float
    height: float


def svg(dashboard: Json, ask: Ask, start: float, end: float, note: str) -> str:
    """The picture of a dashboard between two times, Unix seconds; `note` says where the figures are from."""
    panels = dashboard["panels"]
    height = _HEAD + _LINE * max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) + _MARGIN
    width = 24 * _CELL + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="#f4f5f5"/>',
        _text(_MARGIN, 20, dashboard["title"], size=17, weight="bold"),
        _text(_MARGIN, 38, note, size=12, colour="#8a1f11"),
    ]
    for panel in panels:
        parts.extend(_panel(panel, ask, start, end))
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Json, ask: Ask, start: float, end: float) -> Iterator[str]:
    place = panel["gridPos"]
    box = _Box(place["x"] * _CELL + _MARGIN, place["y"] * _LINE + _HEAD, place["w"] * _CELL - _MARGIN,
               place["h"] * _LINE - _MARGIN)  # fmt: skip
    if panel["type"] == "row":
        yield _text(box.x, box.y + 18, panel["title"], size=14, weight="bold")
        return
    yield f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" fill="#fff" stroke="#d8d9da"/>'
    yield _text(box.x + 8, box.y + 17, panel["title"], size=12, weight="bold")
    unit = panel["fieldConfig"]["defaults"]["unit"]
    if panel["type"] == "stat":
        yield from _stat(panel, box, ask(panel["targets"][0]["expr"], False))
    elif panel["type"] == "table":
        yield from _table(panel, box, [ask(target["expr"], False) for target in panel["targets"]])
    else:
        found = [
            (_legend(target["legendFormat"], series["metric"]), series["values"])
            for target in panel["targets"]
            for series in ask(target["expr"], True)
        ]
        stacked = panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal"
        yield from _graph(box, found, unit, start, end, stacked=stacked)


def _stat(panel: Json, box: _Box, found: Sequence[Json]) -> Iterator[str]:
    defaults = panel["fieldConfig"]["defaults"]
    value = float(found[0]["value"][1]) if found else float("nan")
    words = {key: it["text"] for mapping in defaults["mappings"] for key, it in mapping["options"].items()}
    reached = [step["color"] for step in defaults["thresholds"]["steps"] if value >= (step["value"] or value)]
    colour = {"green": "#2d7a3a", "red": "#c4392f", "yellow": "#b8860b"}[reached[-1] if reached else "green"]
    shown = words.get(f"{value:.0f}", formatted(value, defaults["unit"]))
    yield _text(box.x + box.width / 2, box.y + box.height / 2 + 22, shown, size=28, anchor="middle", colour=colour)


def _table(panel: Json, box: _Box, found: Sequence[Sequence[Json]]) -> Iterator[str]:
    columns = [
        (override["matcher"]["options"], {it["id"]: it["value"] for it in override["properties"]})
        for override in panel["fieldConfig"]["overrides"]
    ]
    rows: dict[str, dict[str, float]] = {}
    for place, answers in enumerate(found):
        for series in answers:
            name = f"Value #{chr(ord('A') + place)}"
            rows.setdefault(series["metric"].get("node", ""), {})[name] = float(series["value"][1])
    step = box.width / len(columns)
    for place, (source, properties) in enumerate(columns):
        x = box.x + 12 + place * step
        yield _text(x, box.y + 42, properties["displayName"], size=11, colour="#6d7278")
        for line, (node, values) in enumerate(sorted(rows.items(), key=lambda row: -row[1].get("Value #A", 0.0))):
            shown = node if source == "node" else formatted(values.get(source, float("nan")), properties["unit"])
            yield _text(x, box.y + 64 + 20 * line, shown, size=12)


def _graph(
    box: _Box, found: Sequence[tuple[str, Sequence[Any]]], unit: str, start: float, end: float, *, stacked: bool
) -> Iterator[str]:
    inner = _Box(box.x + 74, box.y + 28, box.width - 86, box.height - 78)
    lines = [(name, {float(at): float(value) for at, value in values}) for name, values in found]
    times = sorted({at for _, values in lines for at in values})
    drawn: list[tuple[str, dict[float, float]]] = []
    below = dict.fromkeys(times, 0.0)
    for name, values in lines:
        known = {at: value for at, value in values.items() if value == value}  # noqa: PLR0124 (NaN is not itself)
        if stacked:
            below = {at: below[at] + known.get(at, 0.0) for at in times}
            known = dict(below)
        drawn.append((name, known))
    top = max((value for _, values in drawn for value in values.values()), default=0.0) * 1.1 or 1.0
    for share in (0.0, 0.5, 1.0):
        y = inner.y + inner.height * (1 - share)
        yield f'<path d="M{inner.x} {y:.1f}h{inner.width}" stroke="#e4e5e6"/>'
        yield _text(inner.x - 6, y + 4, formatted(top * share, unit), size=10, anchor="end", colour="#6d7278")
    for share, label in ((0.0, f"-{(end - start) / 60:.0f} min"), (1.0, "now")):
        anchor = "end" if share else "start"
        yield _text(inner.x + inner.width * share, inner.y + inner.height + 14, label, size=10, anchor=anchor)
    colours = [_COLOURS[place % len(_COLOURS)] for place in range(len(drawn))]
    for (_, values), colour in reversed(list(zip(drawn, colours, strict=True))):
        points = [
            (inner.x + inner.width * (at - start) / (end - start), inner.y + inner.height * (1 - value / top))
            for at, value in sorted(values.items())
        ]
        path = " ".join(f"{x:.0f},{y:.0f}" for x, y in points)
        if stacked and points:
            ground = f"{points[-1][0]:.0f},{inner.y + inner.height:.0f} {points[0][0]:.0f},{inner.y + inner.height:.0f}"
            yield f'<polygon points="{path} {ground}" fill="{colour}" fill-opacity="0.75"/>'
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    yield from _names(inner, [name for name, _ in drawn], colours)


def _names(inner: _Box, names: Sequence[str], colours: Sequence[str]) -> Iterator[str]:
    x, y = inner.x - 60, inner.y + inner.height + 30
    for name, colour in zip(names, colours, strict=True):
        if x + 16 + 6.2 * len(name) > inner.x + inner.width:
            x, y = inner.x - 60, y + 13
        yield f'<rect x="{x:.0f}" y="{y - 8:.0f}" width="10" height="8" fill="{colour}"/>'
        yield _text(x + 14, y, name, size=10)
        x += 26 + 6.2 * len(name)


def _legend(form: str, labels: Mapping[str, str]) -> str:
    for name, value in labels.items():
        form = form.replace("{{" + name + "}}", value)
    return form


def formatted(value: float, unit: str) -> str:
    """A figure as a dashboard shows it."""
    if value != value:  # noqa: PLR0124 (NaN is not itself)
        return "-"
    if unit == "percentunit":
        return f"{value:.0%}"
    if unit == "bytes":
        power = 0
        while value >= 1024 and power < len(_BINARY) - 1:
            value, power = value / 1024, power + 1
        return f"{value:.3g} {_BINARY[power]}"
    suffix = {"s": " s", "reqps": " /s"}.get(unit, "")
    return f"{value:.3g}{suffix}"


def _text(x: float, y: float, text: str, *, size: int, weight: str = "normal", anchor: str = "start",
          colour: str = "#24292e") -> str:  # fmt: skip
    look = f'font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(text)}</text>'
