"""The documents that commands print as JSON or YAML: an interface, described in docs/json.md and tested."""

import json
import sys
from collections.abc import Mapping
from typing import Any

import yaml

from basekeeper.cache.evidence import QuarantineEntry
from basekeeper.cache.moments import timestamp
from basekeeper.cache.names import display
from basekeeper.cache.orphans import Orphan
from basekeeper.cache.pressure import Relief
from basekeeper.cache.quarantine_plan import Hold
from basekeeper.cache.report import Report, Row
from basekeeper.cache.settings import Policy
from basekeeper.cache.trips import Trip
from basekeeper.cache.wholeness import State, Wholeness
from basekeeper.resources import maintenance_window

from . import streams
from .options import Output

API_VERSION = "basekeeper.io/v1alpha1"


def write(document: Mapping[str, Any], form: Output) -> None:
    """Print one document to standard output."""
    if form is Output.YAML:
        text = yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True)
        if not streams.can_show(text):
            text = yaml.safe_dump(dict(document), sort_keys=False)
    else:
        text = json.dumps(document, indent=2) + "\n"
    sys.stdout.write(text)
    sys.stdout.flush()


def of_report(report: Report) -> dict[str, Any]:
    """The document of a plan or a pass."""
    seconds = report.seconds
    document: dict[str, Any] = {
        "kind": report.kind,
        "apiVersion": API_VERSION,
        "node": report.node,
        "time": timestamp(report.time),
        "policy": {"name": report.policy.name, "mode": report.policy.mode.value},
        "outcome": report.outcome.value,
        "holds": [of_hold(hold) for hold in report.holds],
        "notes": [_present({"about": n.about, "message": n.message, "path": n.path}) for n in report.notes],
        "files": [of_row(row) for row in report.rows],
        "totals": {
            "files": len(report.cached),
            "bytes": sum(row.bytes for row in report.cached),
            "removableBytes": report.removable,
            "reclaimedBytes": report.reclaimed,
            "quarantinedBytes": report.quarantined,
            "keptByReason": dict(report.kept_by_reason),
        },
        **_present({"pressure": report.relief and of_relief(report.relief, report.policy)}),
        **_neighbours(report),
        "seconds": {
            "observe": round(seconds.observe, 4),
            "judge": round(seconds.judge, 4),
            "act": round(seconds.act, 4),
            "observeBy": {part.value: round(spent, 4) for part, spent in seconds.by_part.items()},
        },
    }
    if report.wholeness is not None:
        document["integrity"] = _of_wholeness(report.wholeness)
    if report.trips:
        document["trips"] = [_of_trip(report, trip) for trip in report.trips]
    if report.window is not None:
        document["window"] = maintenance_window.told(report.window)
    if report.error:
        document["error"] = report.error
    return document


def of_relief(relief: Relief, policy: Policy) -> dict[str, Any]:
    """What a plan or a pass says about room on the disk."""
    pressure = policy.pressure
    percent = relief.used_percent
    return {
        "state": relief.state.value,
        "message": relief.message,
        **_present(
            {
                "usedPercent": None if percent is None else round(percent, 2),
                "highPercent": pressure and pressure.high_percent,
                "lowPercent": pressure and pressure.low_percent,
                "maxCacheBytes": policy.max_cache_bytes,
            }
        ),
        "cacheBytes": relief.cache_bytes,
        "targetBytes": relief.target,
        "evictableBytes": relief.evictable,
    }


def _of_wholeness(known: Wholeness) -> dict[str, Any]:
    return {
        "files": {state.value: known.count(state) for state in State},
        "verified": known.verified,
        "findings": [
            {
                "name": display(item.name),
                "kind": item.flaw.value,
                "inUse": item.identity in known.in_use,
                "message": item.message,
                "offsets": list(item.offsets),
                "foundAt": timestamp(item.found_at),
            }
            for item in known.findings
        ],
    }


def _of_trip(report: Report, trip: Trip) -> dict[str, Any]:
    return _present(
        {
            "trip": report.trip_name(trip),
            "cause": trip.cause.value,
            "since": timestamp(trip.since),
            "message": trip.message,
            "clears": trip.clears,
        }
    )


def _neighbours(report: Report) -> dict[str, Any]:
    """What a pass knows of nova's own manager and of directories that nobody owns any more; absent: nothing."""
    told: dict[str, Any] = {}
    if report.nova is not None:
        answers = {"touches": report.nova.touches, "removes": report.nova.removes}
        told["novaManager"] = {
            about: {"known": answer.known, "sign": answer.sign.value, "message": answer.message}
            for about, answer in answers.items()
        }
    if report.orphans.unknown is None:
        told["orphans"] = {
            "directories": len(report.orphans.directories),
            "bytes": report.orphans.bytes,
            "aloneBytes": report.orphans.alone_bytes,
        }
    if report.touched.stamps or report.touched.failures:
        told["touched"] = {"files": len(report.touched.stamps), "failed": len(report.touched.failures)}
    return told


def of_orphan(orphan: Orphan) -> dict[str, Any]:
    """One orphaned directory."""
    return {
        "path": orphan.path,
        "kind": orphan.kind.value,
        "unchangedSince": timestamp(orphan.changed_at),
        "bytes": orphan.bytes,
        "bases": list(orphan.bases),
        "alone": list(orphan.alone),
        "aloneBytes": orphan.alone_bytes,
    }


def of_row(row: Row) -> dict[str, Any]:
    """One file of a plan or a pass."""
    return {
        "name": row.name,
        "kind": row.kind.value,
        "verdict": row.verdict.value,
        "reason": row.reason.value,
        "message": row.message,
        "users": list(row.users),
        "ageSeconds": None if row.age is None else max(0, int(row.age)),
        "bytes": row.bytes,
        **_present(
            {
                "removableAt": None if row.removable_at is None else timestamp(row.removable_at),
                "action": row.action and row.action.value,
                "error": row.error,
                "quarantineEntry": row.entry,
            }
        ),
    }


def of_hold(hold: Hold) -> dict[str, Any]:
    """One thing that held something."""
    return _present({"reason": hold.reason.value, "message": hold.message, "path": hold.path})


def of_entry(entry: QuarantineEntry) -> dict[str, Any]:
    """One quarantined file."""
    return {
        "name": str(entry.name),
        "entry": entry.id,
        "kind": entry.name.kind.value,
        "reason": entry.reason,
        "removedAt": timestamp(entry.removed_at),
        "dueAt": timestamp(entry.due_at),
        "bytes": entry.reclaimable,
        "lastUsers": list(entry.last_users),
    }


def a_list(kind: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    """A document that is a list of things."""
    return {"kind": kind, "apiVersion": API_VERSION, "items": items}


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}
