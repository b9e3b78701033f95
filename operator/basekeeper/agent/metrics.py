"""What an agent counts. No label has a node, file or image: the scrape adds the node.

The words are those of the report: a pass is counted from nothing else. What is known of the cache stays as the last
pass that could see it left it: a pass that fails as a whole has seen nothing, and a node without a policy makes none.
"""

import math
import time
from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import Counter, Gauge

from basekeeper.cache import windows
from basekeeper.cache.acts import Action, Failure
from basekeeper.cache.evidence import Part
from basekeeper.cache.names import Kind
from basekeeper.cache.pressure import PressureState
from basekeeper.cache.report import CacheState, Outcome, Report, Row
from basekeeper.cache.settings import Mode, Policy
from basekeeper.cache.storage import Capacity
from basekeeper.cache.verdicts import (
    AGAINST,
    ANOMALIES,
    EVICTION_REASONS,
    HOLD_REASONS,
    REASONS,
    RESTORE_REASONS,
    Reason,
)
from basekeeper.cache.wholeness import State
from basekeeper.cluster.metrics import ProgramMetrics

_ANSWERS = ("answered", "silent")
_PHASES = ("observe", "judge", "act")
_OURS = [kind for kind in Kind if kind is not Kind.FOREIGN]
"""The kinds that are ever removed."""
_JUDGEMENTS = [(verdict, reason) for verdict in REASONS for reason in Reason if reason in REASONS[verdict]]


class Metrics(ProgramMetrics):
    """The agent's metrics."""

    def __init__(self) -> None:
        super().__init__("the watch on the node's own object runs")
        self._count_passes()
        self._count_acts()
        self._count_touches()
        self._show_beside()
        self._show_orders()
        self._show_cache()

    def _count_passes(self) -> None:
        self._passes = self.counter("basekeeper_passes_total", "passes, by how they ended", {"outcome": Outcome})
        self._phases = self.histogram(
            "basekeeper_pass_duration_seconds",
            "how long the phases of passes took: `observe` looks, `judge` decides, `act` removes, purges and restores, "
            "looks again meanwhile, and writes the ledger",
            {"phase": _PHASES},
        )
        self._parts = self.histogram(
            "basekeeper_observe_duration_seconds",
            "how long the parts of `observe` took: `inventory` reads `_base` and the quarantine, `libvirt` lists the "
            "domains, `disks` walks the instances and reads their headers, `locks` asks who holds or opens a file",
            {"source": Part},
        )
        self._last = self.gauge(
            "basekeeper_last_pass_timestamp_seconds", "when the last pass was made, however it ended; 0 before it"
        )
        self._success = self.gauge(
            "basekeeper_last_success_timestamp_seconds",
            "when the last pass without failure was made; 0 before the first since the agent started",
        )

    def _count_acts(self) -> None:
        kinds = {"kind": _OURS}
        self._target = self.gauge(
            "basekeeper_target_bytes",
            "what the last pass set out to remove and to purge when it began to act; 0 for a pass that removes nothing",
        )
        self._removed = (
            self.counter("basekeeper_removed_files_total", "files moved out of the cache into the quarantine", kinds),
            self.counter("basekeeper_removed_bytes_total", "bytes of these", kinds),
        )
        self._purged = (
            self.counter("basekeeper_purged_files_total", "files deleted for good", kinds),
            self.counter("basekeeper_purged_bytes_total", "bytes of these: what was freed", kinds),
        )
        reasons = {"reason": _in_order(EVICTION_REASONS)}
        self._evicted = (
            self.counter(
                "basekeeper_evicted_files_total", "of the removed files, those that went before their own age", reasons
            ),
            self.counter("basekeeper_evicted_bytes_total", "bytes of these", reasons),
        )
        self._restored = self.counter(
            "basekeeper_restored_files_total",
            "files that passes put back from the quarantine, and why; `Draining`: only because the policy empties it",
            {**kinds, "reason": _in_order(RESTORE_REASONS)},
        )
        self._skipped = self.counter(
            "basekeeper_skipped_files_total",
            "acts that a late look called off, by what it found",
            {"reason": _in_order(AGAINST)},
        )
        self._failed = self.counter(
            "basekeeper_failed_files_total", "acts that failed, by the class of the error", {"reason": Failure}
        )
        self._vanished = self.counter(
            "basekeeper_vanished_files_total",
            "finished files that left the cache between two passes, or during one, by another hand than basekeeper's: "
            "nova's own manager, or a person",
        )

    def _count_touches(self) -> None:
        self._touched = self.counter(
            "basekeeper_touched_files_total", "bases in use that got a fresh time stamp (`spec.touchInUse`)"
        )
        self._touch_failures = self.counter(
            "basekeeper_touch_failures_total",
            "bases in use that should have got one and could not, by the class of the error; most are qemu's user's",
            {"reason": Failure},
        )

    def _show_beside(self) -> None:
        self._nova = (
            self.gauge(
                "basekeeper_nova_touches",
                "1 where nova's own manager touches the bases of its instances, 0 where not; NaN: not known",
            ),
            self.gauge(
                "basekeeper_nova_removes",
                "1 where nova's own manager removes bases beside basekeeper, 0 where not; NaN: not known",
            ),
        )
        for gauge in self._nova:
            gauge.set(math.nan)
        self._orphans = (
            self.gauge(
                "basekeeper_orphaned_directories",
                "instance directories without a domain that nothing has changed for a day, as the last pass that could "
                "ask libvirt found them",
            ),
            self.gauge("basekeeper_orphaned_bytes", "bytes that these take up"),
            self.gauge("basekeeper_orphaned_alone_bytes", "bytes of the bases that nothing but these need"),
        )

    def _show_orders(self) -> None:
        self._interval = self.gauge(
            "basekeeper_interval_seconds", "time between passes by the policy in force; 0 while the node has none"
        )
        self._enforcing = self.gauge(
            "basekeeper_enforcing", "1 while the policy in force has `mode: Enforce` and is not suspended"
        )
        self._window = self.gauge(
            "basekeeper_window_open",
            "1 while removals may run by the policy's `maintenanceWindows`, also where it has none; 0 outside all of "
            "them, and while the node has no policy",
        )
        self.policy_generation = self.gauge(
            "basekeeper_policy_generation_applied", "generation of the policy that the last pass ran under; 0: none"
        )

    def _show_cache(self) -> None:
        states = {"state": CacheState}
        self._cache = (
            self.gauge(
                "basekeeper_cache_files",
                "what lies in the cache after the last pass: every entry of `_base` but basekeeper's own, in one state",
                states,
            ),
            self.gauge(
                "basekeeper_cache_bytes",
                "bytes that removing these files would free: allocated blocks, 0 with a second hard link",
                states,
            ),
        )
        self._reclaimable = self.gauge(
            "basekeeper_reclaimable_bytes", 'the same as `basekeeper_cache_bytes{state="removable"}`'
        )
        self._files = Gauge(
            "basekeeper_files",
            "the same files by the verdict of the last pass and its reason",
            ["verdict", "reason"],
            registry=self.registry,
        )
        for verdict, reason in _JUDGEMENTS:
            self._files.labels(verdict, reason)
        self._holds = self.gauge(
            "basekeeper_holds",
            "what held removals or purges in the last pass, each once: a path, a domain, an anomaly",
            {"reason": _in_order(HOLD_REASONS)},
        )
        self._quarantine = (
            self.gauge("basekeeper_quarantine_files", "files that wait in the quarantine"),
            self.gauge("basekeeper_quarantine_bytes", "bytes that purging these would free"),
        )
        self._breaker = self.gauge(
            "basekeeper_breaker_open",
            "1 while the evidence itself cannot be trusted, so that nothing is removed, by what was seen",
            {"cause": _in_order(ANOMALIES)},
        )
        self._breaker_since = self.gauge(
            "basekeeper_breaker_since_timestamp_seconds", "when the oldest of these was first seen; 0: none"
        )
        self._libvirt = self.gauge(
            "basekeeper_libvirt_reachable",
            "1 where libvirt listed all domains in the last pass, or the host has none to ask (`--libvirt none`); "
            "0 where it did not; NaN before the first pass",
        )
        self._libvirt.set(math.nan)
        self._show_hosts()
        self._size = self.gauge("basekeeper_filesystem_size_bytes", "size of the file system that the cache lies on")
        self._available = self.gauge(
            "basekeeper_filesystem_available_bytes", "what an ordinary user may still write there"
        )
        self._integrity = self.gauge(
            "basekeeper_integrity_files",
            "bases in the cache by what is known of their content: `pending` has no baseline yet, `corrupt` and "
            "`corrupt_in_use` changed since theirs, `unreadable` could not be read",
            {"state": State},
        )
        self._oldest = self.gauge(
            "basekeeper_oldest_verified_timestamp_seconds",
            "when the least recently verified base that has a baseline was verified; 0 while none has one",
        )
        self._verified_bytes = self.counter(
            "basekeeper_verified_bytes_total", "bytes that were read to verify bases; holes are not read"
        )
        self._verification_seconds = self.counter(
            "basekeeper_verification_seconds_total",
            "time that this took, waiting for `maxBytesPerSecond` included",
        )
        self._pressure = self.gauge(
            "basekeeper_pressure",
            "1 for how the last pass found disk and budget, 0 for the other states; all 0 while the policy has neither "
            "`pressure` nor `maxCacheBytes`",
            {"state": PressureState},
        )
        self._pressure_bytes = (
            self.gauge("basekeeper_pressure_target_bytes", "bytes that must go for want of room"),
            self.gauge("basekeeper_pressure_evictable_bytes", "bytes that may go for it"),
        )

    def _show_hosts(self) -> None:
        self._hosts = self.gauge(
            "basekeeper_shared_hosts",
            "other hosts that share the storage, with `sharedStorage.mode: Coordinate`, by whether they had answered "
            "the latest round when the last pass looked; 0 otherwise",
            {"state": _ANSWERS},
        )
        self._leader = self.gauge("basekeeper_shared_leader", "1 where the last pass led the hosts of the storage")
        self._round = self.gauge(
            "basekeeper_shared_round", "number of the latest round of the hosts of the storage; 0: there is none"
        )
        self._skew = self.gauge(
            "basekeeper_shared_clock_skew_seconds", "by how much the file server's clock is ahead of this host's"
        )

    def show_order(self, policy: Policy | None, interval: float) -> None:
        """Show what the node is told to do; None: nothing."""
        self._interval.set(0 if policy is None else interval)
        self._enforcing.set(policy is not None and policy.mode is Mode.ENFORCE and not policy.suspend)
        self._window.set_function(lambda: float(policy is not None and windows.is_open(policy.windows, time.time())))
        if policy is None:
            self.policy_generation.set(0)

    def count_verified(self, read: int, seconds: float) -> None:
        """Count what was read to verify bases, and how long that took."""
        self._verified_bytes.inc(read)
        self._verification_seconds.inc(seconds)

    def count_pass(self, report: Report, capacity: Capacity | None) -> None:
        """Count one pass, and show what it saw; `capacity` is that of the cache's file system, if it could be asked."""
        self._passes.labels(report.outcome).inc()
        self._last.set(report.time)
        if report.error:  # it says nothing of the cache, nor how long its phases took
            return
        for phase in _PHASES:
            self._phases.labels(phase).observe(getattr(report.seconds, phase))
        for part, seconds in report.seconds.by_part.items():
            self._parts.labels(part).observe(seconds)
        if report.outcome is not Outcome.FAILED:
            self._success.set(report.time)
        self._count(report)
        self._show(report)
        self._show_neighbours(report)
        if capacity is not None:
            self._size.set(capacity.size)
            self._available.set(capacity.available)

    def _count(self, report: Report) -> None:
        self._target.set(report.target)
        _add(self._removed, report.removed)
        _add(self._purged, (row for row in report.rows if row.action is Action.PURGED))
        for row in report.rows:
            if row.action is Action.RESTORED:
                self._restored.labels(row.kind, row.reason).inc()
            elif row.action is Action.SKIPPED:
                self._skipped.labels(row.reason).inc()
            elif row.action is Action.FAILED:
                self._failed.labels(row.failure or Failure.OTHER).inc()
            if (
                row.action in (Action.QUARANTINED, Action.PURGED)
                and row.entry is None
                and row.reason in EVICTION_REASONS
            ):
                files, size = self._evicted
                files.labels(row.reason).inc()
                size.labels(row.reason).inc(row.bytes)
        self._vanished.inc(len(report.vanished))
        self._touched.inc(len(report.touched.stamps))
        for failed in report.touched.failures:
            self._touch_failures.labels(failed.failure).inc()

    def _show_neighbours(self, report: Report) -> None:
        """Show what is known of nova's own manager, and of directories that nobody owns any more."""
        if report.nova is not None:
            for gauge, answer in zip(self._nova, (report.nova.touches, report.nova.removes), strict=True):
                gauge.set(math.nan if answer.known is None else answer.known)
        if report.orphans.unknown is None:
            found = report.orphans
            figures = (len(found.directories), found.bytes, found.alone_bytes)
            for gauge, figure in zip(self._orphans, figures, strict=True):
                gauge.set(figure)

    def _show(self, report: Report) -> None:
        files, size = self._cache
        for state, rows in report.by_state.items():
            files.labels(state).set(len(rows))
            size.labels(state).set(sum(row.bytes for row in rows))
        self._reclaimable.set(report.reclaimable)
        found = Tally((row.verdict, row.reason) for row in report.left)
        for verdict, reason in found.keys() | _JUDGEMENTS:
            self._files.labels(verdict, reason).set(found[verdict, reason])
        held = Tally(hold.reason for hold in report.holds)
        for reason in HOLD_REASONS:
            self._holds.labels(reason).set(held[reason])
        files, size = self._quarantine
        files.set(report.quarantined_files)
        size.set(report.quarantined)
        relief = report.relief
        for place in PressureState:
            self._pressure.labels(place).set(relief is not None and relief.state is place)
        target, evictable = self._pressure_bytes
        target.set(0 if relief is None else relief.target)
        evictable.set(0 if relief is None else relief.evictable)
        known = report.wholeness
        for condition in State:
            self._integrity.labels(condition).set(0 if known is None else known.count(condition))
        self._oldest.set(0 if known is None else known.oldest_verified_at or 0)
        causes = {trip.cause for trip in report.trips}
        for cause in ANOMALIES:
            self._breaker.labels(cause).set(cause in causes)
        self._breaker_since.set(min((trip.since for trip in report.trips), default=0.0))
        self._libvirt.set(report.libvirt_failure is None)
        group = report.group
        silent = len(group.silent) if group is not None else 0
        self._hosts.labels("silent").set(silent)
        self._hosts.labels("answered").set(len(group.known) - silent if group is not None else 0)
        self._leader.set(group is not None and group.leads)
        self._round.set(group.round if group is not None else 0)
        self._skew.set(group.skew if group is not None else 0.0)


def _add(counters: tuple[Counter, Counter], rows: Iterable[Row]) -> None:
    files, size = counters
    for row in rows:
        files.labels(row.kind).inc()
        size.labels(row.kind).inc(row.bytes)


def _in_order(reasons: frozenset[Reason]) -> list[Reason]:
    return [reason for reason in Reason if reason in reasons]
