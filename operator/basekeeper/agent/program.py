"""The agent: asks what to do, makes a pass, tells of it, and sleeps until the next one is due or something is told.

Passes run in a thread of their own and so does the watch; neither waits for the other. The watch only wakes: what
counts is what the API server says when the pass begins.
"""

import logging
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from basekeeper.cache import engine, storage, windows
from basekeeper.cache.acts import Action
from basekeeper.cache.report import Report
from basekeeper.cache.settings import Host, Mode, Policy
from basekeeper.cluster.api import Api
from basekeeper.cluster.backoff import Backoff, jittered
from basekeeper.cluster.connection import Connection
from basekeeper.cluster.kinds import NODE_CACHES
from basekeeper.cluster.probes import Probes
from basekeeper.cluster.watch import Event, Subject, Watch
from basekeeper.nova_conf import manager as nova_manager
from basekeeper.resources.conditions import Why
from basekeeper.resources.kinds import GROUP, RUN_NOW

from . import events, status
from .answers import Answers
from .disk_watch import DiskWatch
from .events import COMPONENT
from .metrics import Metrics
from .orders import Order, Orders
from .reporting import Reporter
from .schedule import Schedule
from .verifying import Verifying

_log = logging.getLogger(__name__)
_BUSY_RETRY = 45.0
_REFUSED_RETRY = 120.0
"""Seconds after which an answer that refused the own object is asked for again: permissions are mended by people."""
_FIRST_RETRY, _LONGEST_RETRY = 30.0, 600.0
"""Seconds after a turn that failed in a way that nobody foresaw."""
_LAST_WORDS = 3.0
"""Seconds that a stopping agent has for what is no pass: to ask, or to report."""
_STUCK_AFTER = 3600.0
"""Seconds without a sign of life after which the agent is taken to be stuck: no step of a pass takes that long."""
_TICK = 30.0
_NAMED = 20
"""Names that one line of the log has room for."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What the agent is started with."""

    host: Host
    listen: str
    start_jitter: float
    """Seconds within which it begins: a fleet that starts together must not ask together."""
    grace: float
    """Seconds that a pass may take to end between two files when the agent is asked to stop."""
    disk_check: float
    """Seconds between looks at how full the disk is, and between passes that make room on it."""


@dataclass
class _Mail:
    """What the watch has heard and the passes have not taken yet. Locked: two threads use it."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    told: bool = False
    asked: bool = False
    brake: bool = False
    """What is told now removes nothing: a pass that is under way removes nothing more."""
    generation: tuple[str, int] | None = None
    run_now: str | None = None
    known: bool = False


class Ended(Exception):
    """The passes have ended although nobody asked for that."""


class Agent:
    """One node's agent."""

    def __init__(self, setup: Setup, connection: Connection) -> None:
        self._setup = setup
        self._host = setup.host
        self._metrics = Metrics()
        self._api = Api(connection, COMPONENT, self._metrics.count_request)
        self._orders = Orders(self._api, setup.host.node, setup.host.state)
        self._reporter = Reporter(self._api, setup.host.node)
        self._mail = _Mail()
        self._stopping = threading.Event()
        self._spoken = False
        """Whether the API server has answered at least once."""
        self._refused: str | None = None
        """Why the own object could not be read although the API server answered."""
        self._disk = DiskWatch(setup.host, setup.disk_check)
        self._answers = Answers(setup.host)
        self._verifying = Verifying(setup.host, self._metrics.count_verified, self._found)
        self._acting = False
        self._beat = time.monotonic()
        subject = Subject(NODE_CACHES, self._hear, field_selector=f"metadata.name={setup.host.node}")
        self._watch = Watch(connection, self._api, [subject], finalizer=f"{GROUP}/unused")
        self._metrics.watch_up.set_function(lambda: self._watch.up)
        self._passes = threading.Thread(target=self._work, name="passes", daemon=True)
        self._probes = Probes(setup.listen, self._wrong, self._not_ready, self._metrics.registry)

    @property
    def port(self) -> int:
        """Where the probes listen."""
        return self._probes.port

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set, then end between two files. Raises Ended."""
        _log.info("agent of %s started", self._host.node, extra={"instances": str(self._host.instances)})
        self._probes.start()
        self._watch.start()
        self._passes.start()
        self._verifying.start()
        while not stop.wait(1.0) and self._passes.is_alive():
            pass
        _log.info("stopping: a pass that is under way ends between two files")
        self._stopping.set()
        with self._mail.changed:
            self._mail.changed.notify_all()
        self._see_off()
        self._verifying.stop(_LAST_WORDS)
        self._watch.stop()
        self._probes.stop()
        if not stop.is_set():
            raise Ended("the passes have ended; the log says why")
        _log.info("stopped")

    def _see_off(self) -> None:
        """Wait for the passes to end; not for a request that an API server which is away would keep for long."""
        asked = quiet = time.monotonic()
        while self._passes.is_alive():
            now = time.monotonic()
            quiet = now if self._acting else quiet
            if now - asked > self._setup.grace or now - quiet > _LAST_WORDS:
                return
            self._passes.join(0.1)

    # --- what the watch hears ----------------------------------------------------------------------------------

    def _hear(self, event: Event) -> None:
        """Take from an event of the own object what may matter; in the watch's thread."""
        metadata: Mapping[str, Any] = event["object"].get("metadata", {})
        spec: Mapping[str, Any] = event["object"].get("spec") or {}
        deleted = event["type"] == "DELETED"
        generation = None if deleted else (str(metadata.get("uid")), int(metadata.get("generation", 0)))
        run_now = (metadata.get("annotations") or {}).get(RUN_NOW)
        with self._mail.changed:
            mail = self._mail
            if generation != mail.generation:
                mail.told = True
                mail.brake = deleted or spec.get("mode") != Mode.ENFORCE or bool(spec.get("suspend"))
            if mail.known and run_now is not None and run_now != mail.run_now:
                mail.asked = True
            mail.generation, mail.run_now, mail.known = generation, run_now, True
            if mail.told or mail.asked:
                mail.changed.notify_all()

    # --- passes ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        schedule = Schedule(time.monotonic() + jittered(self._setup.start_jitter / 2, 1.0))
        failures = Backoff(_FIRST_RETRY, _LONGEST_RETRY)
        while not self._stopping.is_set():
            self._wait(schedule)
            if self._stopping.is_set():
                return
            now = time.monotonic()
            if now >= schedule.due:
                self._try_turn(schedule, failures)
            elif self._reporter.again():
                self._watch.expect_event()

    def _wait(self, schedule: Schedule) -> None:
        """Sleep until something is due or was told."""
        while not self._stopping.is_set():
            self._beat = now = time.monotonic()
            self._answers.give(now)
            if self._disk.calls(now):
                _log.info("the disk is fuller than the policy wants: a pass before its time")
                schedule.asked(now)
            with self._mail.changed:
                if self._mail.asked:
                    schedule.asked(now)
                elif self._mail.told:
                    schedule.told(now)
                self._mail.told = self._mail.asked = False
                until = min(at for at in (schedule.due, self._reporter.next_at()) if at is not None)
                if now >= until:
                    return
                self._mail.changed.wait(min(until - now, _TICK, self._disk.every, self._answers.every))

    def _try_turn(self, schedule: Schedule, failures: Backoff) -> None:
        """One turn; whatever goes wrong in it, there is another one."""
        try:
            self._turn(schedule)
        except Exception:  # noqa: BLE001 (an agent that is gone keeps nothing small; the log has all of it)
            _log.exception("this turn failed in a way that nobody foresaw")
            schedule.retry(time.monotonic(), failures.failed())
        else:
            failures.reset()

    def _turn(self, schedule: Schedule) -> None:
        """One turn: ask, act, tell."""
        order = self._ask()
        self._answers.policy = order.policy
        self._metrics.show_order(order.policy, order.interval)
        self._verifying.told(order.policy)
        if order.policy is None:
            self._disk.passed(None, None)
            self._idle(order)
            if self._refused is None:
                schedule.passed(time.monotonic(), order.interval)
            else:
                schedule.retry(time.monotonic(), _REFUSED_RETRY)
            return
        before = self._reporter.there
        report = self._pass(order.policy)
        if report is None:
            schedule.retry(time.monotonic(), _BUSY_RETRY)
            return
        capacity = storage.capacity(self._host)
        self._metrics.count_pass(report, capacity)
        self._metrics.policy_generation.set(order.origin.generation if order.origin is not None else 0)
        _tell(report, order)
        told = status.after_pass(order, report, self._host, capacity, before, time.time())
        if self._reporter.report(told):
            self._watch.expect_event()
        said = events.of_pass(report, before, told)
        if said:
            owners = (order.found or {}).get("metadata", {}).get("ownerReferences") or [None]
            events.post(self._api, self._host.node, owners[0], said)
        within = self._disk.passed(order.policy, report)
        schedule.passed(time.monotonic(), order.interval, held_by_spawns=report.spawns_alone, within=within)
        if (opens_at := windows.look(order.policy.windows, time.time()).opens_at) is not None:
            closes_at = windows.look(order.policy.windows, opens_at).until or math.inf
            schedule.opens(time.monotonic(), opens_at - time.time(), closes_at - opens_at)

    def _ask(self) -> Order:
        with self._mail.changed:
            self._mail.brake = False
        order = self._orders.fetch()
        refused = order.applied.reason is Why.NOT_PERMITTED
        self._refused = order.applied.message if refused else None
        self._spoken = self._spoken or refused or order.found is not None or order.gone
        if order.found is not None:
            self._reporter.saw(order.found)
            metadata = order.found["metadata"]
            with self._mail.changed:
                # What this answer says needs no second turn when the watch says it as well, or said it meanwhile.
                generation = (str(metadata.get("uid")), int(metadata["generation"]))
                self._mail.told = self._mail.told and self._mail.generation != generation
                self._mail.generation = generation
                if not self._mail.known:
                    self._mail.run_now = (metadata.get("annotations") or {}).get(RUN_NOW)
                    self._mail.known = True
        elif order.gone:
            self._reporter.forget()
        return order

    def _idle(self, order: Order) -> None:
        if order.generation is None:
            return
        if self._reporter.report(status.without_pass(order, self._host, self._reporter.there, time.time())):
            _log.info("no policy selects this node: nothing is observed and nothing removed")
            self._watch.expect_event()

    def _pass(self, policy: Policy) -> Report | None:
        """Make a pass; None when another program is at work on the cache."""

        def progress(_what: str, _at: int, _of: int) -> None:
            self._beat = time.monotonic()

        self._acting = True
        try:
            with self._verifying.paused():
                host = replace(self._host, nova_says=nova_manager.says(self._host.nova_conf))
                return engine.run(host, policy, progress, stop=self._should_stop, resident=True)
        except engine.Busy as busy:
            _log.info("%s", busy)
            return None
        except engine.PassFailed as error:
            return Report("Pass", self._host.node, time.time(), policy, error=str(error))
        finally:
            self._acting = False

    def _found(self) -> None:
        """Verification found something out: a pass soon tells of it, and acts on it."""
        with self._mail.changed:
            self._mail.told = True
            self._mail.changed.notify_all()

    def _should_stop(self) -> bool:
        return self._stopping.is_set() or self._mail.brake

    # --- probes ------------------------------------------------------------------------------------------------

    def _wrong(self) -> str | None:
        if self._passes.ident is not None and not self._passes.is_alive() and not self._stopping.is_set():
            return "the thread of the passes has ended"
        silent = time.monotonic() - self._beat
        return f"no sign of life from the passes for {silent:.0f} s" if silent > _STUCK_AFTER else None

    def _not_ready(self) -> str | None:
        if not self._spoken:
            return "the API server has not answered yet"
        if self._refused is not None:
            return self._refused
        if not self._watch.up:
            return "the watch on this node's NodeImageCache is down"
        return self._reporter.last_error


def _tell(report: Report, order: Order) -> None:
    """A line for each thing that a pass did, and one for the pass."""
    for row in report.rows:
        if row.action is not None:
            level = logging.WARNING if row.action in (Action.FAILED, Action.RESTORED) else logging.INFO
            told = {"file": row.name, "reason": row.reason.value, "bytes": row.bytes, "error": row.error}
            _log.log(level, "%s", row.action.value.lower(), extra=told)
    if report.vanished:
        few = ", ".join(report.vanished[:_NAMED])
        _log.warning(
            "vanished", extra={"count": len(report.vanished), "files": few, "reason": "removed by another hand"}
        )
    seconds = report.seconds
    summary: dict[str, object] = {
        "outcome": report.outcome.value,
        "policy": report.policy.name or None,
        "mode": report.policy.mode.value,
        "generation": order.generation,
        "files": len(report.cached),
        "reclaimable": report.reclaimable,
        "quarantined": report.quarantined,
        "reclaimed": report.reclaimed,
        "holds": ",".join(sorted({hold.reason.value for hold in report.holds})) or None,
        "seconds": round(seconds.observe + seconds.judge + seconds.act, 3),
        "error": report.error,
    }
    _log.log(logging.ERROR if report.error else logging.INFO, "pass", extra=summary)
