"""The tables of docs/metrics.md, made from the registries of the two programs: what is exposed is what they say."""

import re
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Metric

from basekeeper.agent.metrics import Metrics as AgentMetrics
from basekeeper.cluster.metrics import ProgramMetrics
from basekeeper.controller.metrics import Metrics as ControllerMetrics

PROGRAMS: Mapping[str, Callable[[], ProgramMetrics]] = {"Agent": AgentMetrics, "Controller": ControllerMetrics}
"""By the heading under which the page has their metrics."""
_OPEN = ("version", "method", "code")
"""Labels whose values nobody can list."""
_UNITS = {"_timestamp_seconds": "Unix seconds", "_seconds": "seconds", "_bytes": "bytes", "_files": "files"}
_HEAD = "| metric | type | unit | labels | meaning |\n|---|---|---|---|---|\n"
_TABLE = re.compile(r"\| metric \|.*\n(?:\|.*\n)*")


def written(page: str) -> str:
    """The page with the tables that it should have."""
    for heading, program in PROGRAMS.items():
        before, title, rest = page.partition(f"\n## {heading}\n")
        metrics = program()
        metrics.count_request("GET", "200")
        table = _HEAD + "".join(f"| {' | '.join(row)} |\n" for row in _rows(metrics.registry))
        page = before + title + _TABLE.sub(lambda _found, table=table: table, rest, count=1)  # type: ignore[misc]
    return page


def _rows(registry: CollectorRegistry) -> Iterator[tuple[str, ...]]:
    for metric in registry.collect():
        name = exposed(metric)
        if name.startswith("basekeeper_"):
            yield f"`{name}`", metric.type, _unit(name), _labels(metric), metric.documentation


def exposed(metric: Metric) -> str:
    """The name under which a metric is asked for; a histogram's series end in `_bucket`, `_sum` and `_count`."""
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def _unit(name: str) -> str:
    stem = name.removesuffix("_total")
    return next((unit for suffix, unit in _UNITS.items() if stem.endswith(suffix)), "")


def _labels(metric: Metric) -> str:
    values: dict[str, dict[str, None]] = {}
    for sample in metric.samples:
        for label, value in sample.labels.items():
            if label != "le":
                values.setdefault(label, {})[value] = None
    told = (f"`{label}`" if label in _OPEN else f"`{label}`: {', '.join(found)}" for label, found in values.items())
    return "; ".join(told)
