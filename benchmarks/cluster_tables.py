"""What bench_cluster.py tells of its figures: tables for people, and the targets."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.measuring import Spread, Table, Target, fit

Object = dict[str, Any]
MOST_SHARE, MOST_MEMORY, MOST_SECONDS = 0.1, 500.0, 60.0
LINEAR = 1.15
"""A power of the size up to which something counts as linear; below one it has a fixed part."""
READ, WRITE_STATUS_OF_NODE = "get nodeimagecaches", "patch nodeimagecaches/status"


def _table(title: str, found: list[Object], rows: Sequence[tuple[str, Callable[[Object], str]]], *notes: str) -> Table:
    sizes = [f"{item['nodes']:,} nodes" for item in found]
    return Table(title, ("", *sizes), [(name, *(show(item) for item in found)) for name, show in rows], notes)


def _seconds(part: str, what: str) -> Callable[[Object], str]:
    return lambda item: f"{item[part][what]:.1f} s"


def _share(who: str) -> Callable[[Object], str]:
    return lambda item: f"{100 * item['steady']['share'][who]:.1f} %"


def _mib(part: str, what: str) -> Callable[[Object], str]:
    return lambda item: f"{item[part]['memory'][what]:.0f} MiB"


def _each(part: str, what: str) -> Callable[[Object], str]:
    return lambda item: Spread.of(item[part][what]).shown("ms", 1000)


def tables(found: list[Object]) -> Iterator[Table]:
    """All of them, from the figures of each size."""
    steady = [
        ("controller, share of a core", _share("controller")),
        ("API server", _share("kube-apiserver")),
        ("etcd", _share("etcd")),
        ("controller, resident", _mib("steady", "controller")),
        ("controller, at most so far", _mib("steady", "controller at most")),
        ("API server, resident", _mib("steady", "kube-apiserver")),
        ("statuses written a second", lambda item: f"{_steady_rate(item):.2f}"),
        ("etcd's file grew, MiB an hour", lambda item: f"{_hourly(item, 'etcd_grown_mib'):.0f}"),
    ]
    yield _table("steady: every node makes a pass each 40 minutes, and each has news", found, steady)
    speed = [
        ("start, no node has an object: all are written", _seconds("first", "specs_seconds")),
        ("  first roll-up", _seconds("first", "rollup_seconds")),
        ("  all nodes report, and that is rolled up", _seconds("first", "current_seconds")),
        ("edit of the policy: in all specs", _seconds("edit", "specs_seconds")),
        ("  all nodes report, and that is rolled up", _seconds("edit", "current_seconds")),
        ("  controller's processor seconds", lambda item: f"{item['edit']['cpu']['controller']:.1f} s"),
        ("  API server's", lambda item: f"{item['edit']['cpu']['kube-apiserver']:.1f} s"),
        ("  stub agents'", lambda item: f"{item['edit']['cpu']['stub agents']:.1f} s"),
        ("silent nodes are told of, after they count as stale", _seconds("stale", "seconds")),
        ("restart: ready", _seconds("restart", "ready_seconds")),
        ("  first roll-up", _seconds("restart", "rollup_seconds")),
        ("  a paged list of the same objects", lambda item: Spread.of(item["restart"]["list_seconds"]).shown()),
        ("  specs written, of which none was needed", lambda item: str(item["restart"]["specs"])),
        ("  resident at most", _mib("restart", "controller at most")),
    ]
    yield _table("how soon", found, speed, "Nodes answer an edit within five seconds, with a GET and a status each.")
    cost = [
        ("watches, each opened once", lambda item: f"{_watches(item):.2f}"),
        ("GETs a pass", lambda item: f"{_reads(item):.3f}"),
        ("writes a pass with news or heartbeat", lambda item: f"{_writes(item):.3f}"),
        ("other requests", lambda item: str(_others(item))),
        ("bytes of its watch, an event", _watch_bytes),
        ("its object, bytes", lambda item: Spread.of(item["sizes"]["object_bytes"]).shown("B")),
    ]
    yield _table("what a node costs, in the steady window and with the edit", found, cost)
    store = [
        ("the policy's object", lambda item: f"{item['sizes']['policy_bytes'] / 1024:.0f} KiB"),
        ("etcd's file before the edit", lambda item: f"{item['sizes']['etcd_file_mib']:.0f} MiB"),
        ("  in use", lambda item: f"{item['sizes']['etcd_used_mib']:.0f} MiB"),
        ("  in use after compaction", lambda item: f"{item['sizes']['etcd_used_after_compaction_mib']:.0f} MiB"),
        ("the controller was refused", lambda item: _refusals(item, "controller")),
        ("agents were refused", lambda item: _refusals(item, "agents")),
    ]
    yield _table("sizes and refusals", found, store)
    computing = [
        ("listing all objects", _each("computing", "list")),
        ("making snapshots of them", _each("computing", "read")),
        ("what every node should be", _each("computing", "desired")),
        ("the policy's status", _each("computing", "rollup")),
    ]
    yield _table("computing, of the same objects in one process", found, computing, *_fits(found))


def _fits(found: list[Object]) -> list[str]:
    if len(found) < 2:
        return []
    line = fit(*_rollups(found))
    return [f"The roll-up grows with nodes to the power {line.exponent:.2f}; r2 of a line {line.r_squared:.4f}."]


def _rollups(found: list[Object]) -> tuple[list[float], list[float]]:
    """Sizes, and the median seconds of everything that a roll-up computes."""
    values = [sum(Spread.of(item["computing"][part]).median for part in ("desired", "rollup")) for item in found]
    return [float(item["nodes"]) for item in found], values


def _steady_rate(item: Object) -> float:
    return float(item["steady"]["agents"].get(WRITE_STATUS_OF_NODE, 0) / item["steady"]["seconds"])


def _hourly(item: Object, what: str) -> float:
    return float(item["steady"][what] * 3600 / item["steady"]["seconds"])


def _did(item: Object, *what: str) -> int:
    """What the stubs did in the steady window and after the edit, by their own count."""
    return sum(item[part]["stubs"].get(name, 0) for part in ("steady", "edit") for name in what)


def _asked(item: Object) -> Counter[str]:
    """What agents asked in the same time, by the audit log."""
    return Counter(item["steady"]["agents"]) + Counter(item["edit"]["agents"])


def _reads(item: Object) -> float:
    return _asked(item)[READ] / max(1, _did(item, "passes"))


def _writes(item: Object) -> float:
    return _asked(item)[WRITE_STATUS_OF_NODE] / max(1, _did(item, "passes", "heartbeats"))


def _watches(item: Object) -> float:
    return float(item["steady"]["open"] / item["nodes"])


def _others(item: Object) -> int:
    return sum(count for name, count in _asked(item).items() if name not in (READ, WRITE_STATUS_OF_NODE))


def _watch_bytes(item: Object) -> str:
    return f"{_did(item, 'watch bytes') / max(1, _did(item, 'watch events')):.0f} B"


def _refusals(item: Object, who: str) -> str:
    return ", ".join(f"{count} x {code}" for code, count in sorted(item["refused"][who].items())) or "never"


def targets(found: list[Object]) -> list[Target]:
    """Those of the issue, judged at the largest size."""
    last = found[-1]
    share = last["steady"]["share"]["controller"]
    most = last["restart"]["memory"]["controller at most"]
    most = max(most, last["steady"]["memory"]["controller at most"])
    starts = [last["first"]["rollup_seconds"], last["restart"]["rollup_seconds"]]
    edit = last["edit"]["specs_seconds"]
    costs = [(_watches(item), _reads(item), _writes(item), _others(item)) for item in found]
    same = all(cost == (1.0, 1.0, 1.0, 0) for cost in costs)
    size = f"{last['nodes']:,} nodes"
    shown = "; ".join(f"{watches:.2f}, {reads:.2f}, {writes:.2f}" for watches, reads, writes, _ in costs)
    judged = [
        Target(f"controller, {size}: share of a core", "< 10 %", f"{100 * share:.1f} %", share < MOST_SHARE),
        Target(f"controller, {size}: memory", "< 500 MiB", f"{most:.0f} MiB", most < MOST_MEMORY),
        Target(
            f"first roll-up, {size}: new cluster, restart",
            "< 60 s",
            ", ".join(f"{seconds:.1f} s" for seconds in starts),
            max(starts) < MOST_SECONDS,
        ),
        Target(f"edit in all specs, {size}", "< 60 s", f"{edit:.1f} s", edit < MOST_SECONDS),
        Target(
            "watches a node, GETs a pass, writes a pass with news or heartbeat", "1, 1, 1 at all sizes", shown, same
        ),
        Target(
            "specs written by a controller that starts again",
            "0",
            str(last["restart"]["specs"]),
            last["restart"]["specs"] == 0,
        ),
    ]
    if len(found) > 1:
        line = fit(*_rollups(found))
        linear = line.exponent < LINEAR
        judged.append(Target("growth of the roll-up with nodes", "linear", f"power {line.exponent:.2f}", linear))
    return judged
