"""What a pass says of its node, as conditions. Values in, values out.

What they are called and what each status of them means is in `resources.conditions`.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from basekeeper.cache.amounts import some
from basekeeper.cache.names import display
from basekeeper.cache.nova_manager import Sign
from basekeeper.cache.pressure import PressureState
from basekeeper.cache.report import Outcome, Report
from basekeeper.cache.verdicts import Reason, Verdict
from basekeeper.cache.wholeness import Flaw
from basekeeper.resources.conditions import Condition, NodeCondition, Said, Status, Why, settle
from basekeeper.resources.node_image_cache import NodeStatus

_OF_THE_AGENT = (NodeCondition.READY, NodeCondition.POLICY_APPLIED)
_RANK = {kind.value: place for place, kind in enumerate(NodeCondition)}


def of_pass(report: Report, before: Mapping[str, Any]) -> list[Said | Condition]:
    """What a pass says of the node. One that failed as a whole ends nothing that an earlier one has seen."""
    if not report.error:
        return [
            _ready(report),
            _libvirt(report),
            *_nova(report),
            _shared(report),
            _disk_pressure(report),
            _integrity(report),
            _breaker(report),
            _holding(report),
        ]
    seen = {item.type: item for item in _known(before) if item.status is not Status.UNKNOWN}
    rest: list[Said | Condition] = [
        seen.get(kind.value) or _unknown(kind, Why.FAILED, "the last pass failed")
        for kind in NodeCondition
        if kind not in _OF_THE_AGENT
    ]
    return [Said(NodeCondition.READY, Status.FALSE, Why.FAILED, report.error), *rest]


def _ready(report: Report) -> Said:
    errors = [f"{row.name}: {row.error}" for row in report.rows if row.error]
    if report.outcome is Outcome.FAILED:
        return Said(NodeCondition.READY, Status.FALSE, Why.FAILED, "; ".join(errors))
    return Said(NodeCondition.READY, Status.TRUE, Why.DONE, "the last pass ended without failure")


def _libvirt(report: Report) -> Said:
    kind = NodeCondition.LIBVIRT_REACHABLE
    if report.libvirt_failure is not None:
        return Said(kind, Status.FALSE, Why.UNREACHABLE, report.libvirt_failure)
    if not report.libvirt_asked:
        return _unknown(kind, Why.NOT_ASKED, "the agent was told that this host has no libvirt (--libvirt none)")
    return Said(kind, Status.TRUE, Why.REACHABLE, "libvirt listed all domains")


def _nova(report: Report) -> Iterator[Said]:
    """What is known of nova's own manager."""
    if report.nova is None:
        return
    touches, removes = report.nova.touches, report.nova.removes
    yield Said(NodeCondition.NOVA_MANAGER_TOUCHES, _STATUS[touches.known], _SIGNS[touches.sign], touches.message)
    trouble = report.touched.trouble if removes.known is not False else None
    message = "; ".join(filter(None, (removes.message, trouble)))
    yield Said(NodeCondition.NOVA_MANAGER_REMOVES, _STATUS[removes.known], _SIGNS[removes.sign], message)


_STATUS = {True: Status.TRUE, False: Status.FALSE, None: Status.UNKNOWN}
_SIGNS = {
    Sign.TOUCHED: Why.TOUCHED,
    Sign.NOT_TOUCHED: Why.NOT_TOUCHED,
    Sign.NOT_REGISTERED: Why.NOT_REGISTERED,
    Sign.NOVA_CONF: Why.NOVA_CONF,
    Sign.FILES_VANISHED: Why.FILES_VANISHED,
    Sign.NO_SIGN: Why.NO_SIGN,
}


def _shared(report: Report) -> Said:
    if report.shared is not None:
        waits = Why.SHARED if report.group is None else Why.WAITING
        why = waits if report.shared.holds else Why.COORDINATING
        return Said(NodeCondition.SHARED_STORAGE, Status.TRUE, why, report.shared.message)
    return Said(NodeCondition.SHARED_STORAGE, Status.FALSE, Why.NOT_SHARED, "no sign of another host")


def _disk_pressure(report: Report) -> Said:
    kind, relief = NodeCondition.DISK_PRESSURE, report.relief
    if relief is None:
        return _unknown(kind, Why.NO_MARKS, "the policy has neither pressure nor maxCacheBytes")
    if relief.state is PressureState.BELOW:
        return Said(kind, Status.FALSE, Why.ROOM_ENOUGH, relief.message)
    return Said(kind, Status.TRUE, _UNDER_PRESSURE[relief.state], relief.message)


_UNDER_PRESSURE: dict[PressureState, Reason | Why] = {
    PressureState.PRESSURE: Reason.PRESSURE,
    PressureState.OVER_BUDGET: Reason.OVER_BUDGET,
    PressureState.NOT_OURS: Why.PRESSURE_NOT_OURS,
}


def _integrity(report: Report) -> Said:
    kind, known = NodeCondition.INTEGRITY_VERIFIED, report.wholeness
    if known is not None and known.findings:
        corrupt = [item for item in known.findings if item.flaw is Flaw.CORRUPT]
        first = next((item for item in corrupt if item.identity in known.in_use), (corrupt or known.findings)[0])
        use = " (in use)" if first.identity in known.in_use else ""
        more = f"; and {len(known.findings) - 1} more" if len(known.findings) > 1 else ""
        message = f"{display(first.name)}{use}: {first.message}{more}"
        return Said(kind, Status.FALSE, Reason.CORRUPT if corrupt else Why.UNREADABLE, message)
    if known is None or report.policy.integrity is None:
        return _unknown(kind, Why.NOT_VERIFIED, "the policy has no integrity, so nothing is verified")
    if waiting := (*known.pending, *known.overdue):
        return _unknown(kind, Why.NOT_READ_YET, f"{some(waiting, 1)} not read yet, or not for two intervals")
    return Said(kind, Status.TRUE, Why.VERIFIED, f"{known.verified} bases are whole")


def _breaker(report: Report) -> Said:
    if report.trips:
        first = report.trips[0]
        return Said(NodeCondition.BREAKER_CLOSED, Status.FALSE, first.cause, first.message)
    return Said(NodeCondition.BREAKER_CLOSED, Status.TRUE, Why.CLOSED, "no anomaly stands in the way of removals")


def _holding(report: Report) -> Said:
    if report.holds:
        first = min(report.holds, key=lambda hold: _WEIGHT.get(hold.reason, 0))
        return Said(NodeCondition.HOLDING, Status.TRUE, first.reason, first.message)
    held = next((row for row in report.rows if row.verdict is Verdict.HOLD), None)
    if held is not None:
        return Said(NodeCondition.HOLDING, Status.TRUE, held.reason, f"{held.name}: {held.message}")
    return Said(NodeCondition.HOLDING, Status.FALSE, Why.NOTHING_HELD, "nothing is held")


_WEIGHT = {
    **dict.fromkeys((Reason.SUSPENDED, Reason.DRAINING, Reason.OUTSIDE_WINDOW), 1),
    Reason.SPAWN_IN_PROGRESS: 2,
    Reason.LIMIT_REACHED: 3,
}
"""Holds that pass by themselves, or that somebody ordered, are told last."""


def _unknown(kind: NodeCondition, why: Why, message: str) -> Said:
    return Said(kind, Status.UNKNOWN, why, message)


def without_pass(message: str) -> list[Said]:
    """What is said of a node that has nothing to do, and why."""
    idle = [_unknown(kind, Why.NO_POLICY, message) for kind in NodeCondition]
    return [item for item in idle if item.type is not NodeCondition.POLICY_APPLIED]


def settled(
    said: Iterable[Said | Condition], before: Mapping[str, Any], generation: int | None, now: datetime
) -> list[dict[str, Any]]:
    """These conditions as a status has them; `before` is the status that there is. Conditions stay as they are."""
    said = list(said)
    new = settle((item for item in said if isinstance(item, Said)), _known(before), generation, now)
    conditions = [*new, *(item for item in said if isinstance(item, Condition))]
    return [
        condition.model_dump(mode="json", by_alias=True, exclude_none=True)
        for condition in sorted(conditions, key=lambda item: _RANK[item.type])
    ]


def is_ours(status: Mapping[str, Any]) -> bool:
    """Whether this release knows these fields of a status: another one may have written it."""
    try:
        NodeStatus.model_validate(status)
    except ValidationError:
        return False
    return True


def _known(before: Mapping[str, Any]) -> tuple[Condition, ...]:
    """The conditions of the status before, as far as this release knows them."""
    return tuple(
        Condition.model_validate(item)
        for item in before.get("conditions") or ()
        if is_ours({"conditions": [item]}) and item["type"] in _RANK
    )
