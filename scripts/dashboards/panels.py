"""The two dashboards: the fleet, and one node. What they ask and say; how Grafana stores that is in `grafana.py`.

Counters are shown as increases over an hour: passes are rare, and a rate in the second says nothing to anybody.
"""

from .grafana import NODE_UID, Dashboard, Panel, Query, Row, Variable

_FLEET_UID = "basekeeper-fleet"
_FLEET = 'cluster=~"$cluster", namespace=~"$namespace"'
_NODE = f'{_FLEET}, node=~"$node"'
_BY_NODE = "by (cluster, namespace, node)"
_UNDONE = 'reason!~"Draining|Pinned"'
_CLUSTER = Variable("cluster", "Cluster", "label_values(basekeeper_build_info, cluster)")
_NAMESPACE = Variable("namespace", "Namespace", 'label_values(basekeeper_build_info{cluster=~"$cluster"}, namespace)')
_ONE_NODE = Variable("node", "Node", f"label_values(basekeeper_interval_seconds{{{_FLEET}}}, node)", every=False)


def _stat(
    title: str, description: str, unit: str, expr: str, **more: float | tuple[tuple[str, str, str], ...]
) -> Panel:
    return Panel(title, description, "stat", unit, (Query(expr),), width=4, height=4, minimum=None, **more)  # type: ignore[arg-type]


def _graph(title: str, description: str, unit: str, *queries: Query, stacked: bool = False,
           warn: float | None = None, maximum: float | None = None) -> Panel:  # fmt: skip
    return Panel(title, description, "timeseries", unit, queries, stacked=stacked, warn=warn, maximum=maximum)


def _times(label: str, name: str, where: str) -> tuple[Query, Query]:
    """Mean and tail of a histogram, by one of its labels."""
    total, count = (f"sum by ({label}) (rate({name}_{part}{{{where}}}[1h]))" for part in ("sum", "count"))
    tail = f"histogram_quantile(0.95, sum by (le, {label}) (rate({name}_bucket{{{where}}}[1h])))"
    return Query(f"{total} / {count}", f"{{{{{label}}}}}"), Query(tail, f"{{{{{label}}}}}, 95 %")


def _passes(where: str) -> tuple[Panel, ...]:
    """What both dashboards show of passes."""
    return (
        _graph(
            "Passes by outcome",
            "Passes of the hour before, by how they ended. Held: something that would go was kept back. Failed: look "
            "at the node's condition Ready.",
            "short",
            Query(f"sum by (outcome) (increase(basekeeper_passes_total{{{where}}}[1h]))", "{{outcome}}"),
            stacked=True,
        ),
        _graph(
            "Removed, freed, and what a pass set out to do",
            "Bytes of the hour before. Removed: moved into the quarantine, from where they can come back. Freed: "
            "purged, gone for good. Target: what the last passes set out to remove and purge. Evicted: removed before "
            "its own age, for want of room; wanted and evictable: what must go for that, and what may.",
            "bytes",
            Query(f"sum(increase(basekeeper_removed_bytes_total{{{where}}}[1h]))", "removed"),
            Query(f"sum(increase(basekeeper_purged_bytes_total{{{where}}}[1h]))", "freed"),
            Query(f"sum(basekeeper_target_bytes{{{where}}})", "target"),
            Query(f"sum by (reason) (increase(basekeeper_evicted_bytes_total{{{where}}}[1h]))", "evicted: {{reason}}"),
            Query(f"sum(basekeeper_pressure_target_bytes{{{where}}})", "wanted"),
            Query(f"sum(basekeeper_pressure_evictable_bytes{{{where}}})", "evictable"),
        ),
        _graph(
            "What became of files",
            "Files of the hour before. Removed and purged as above. Put back: a removed file was needed. Vanished: "
            "another hand than basekeeper's removed a base. Called off: a late look found a reason to keep it. Failed: "
            "the act did not work. Touched: a used base got a fresh time stamp (touchInUse); not touched: it is not "
            "the agent's to touch.",
            "short",
            Query(f"sum(increase(basekeeper_removed_files_total{{{where}}}[1h]))", "removed"),
            Query(f"sum(increase(basekeeper_evicted_files_total{{{where}}}[1h]))", "of these evicted"),
            Query(f"sum(increase(basekeeper_purged_files_total{{{where}}}[1h]))", "purged"),
            Query(f"sum(increase(basekeeper_restored_files_total{{{where}, {_UNDONE}}}[1h]))", "put back"),
            Query(f"sum(increase(basekeeper_vanished_files_total{{{where}}}[1h]))", "vanished"),
            Query(f"sum(increase(basekeeper_skipped_files_total{{{where}}}[1h]))", "called off"),
            Query(f"sum(increase(basekeeper_failed_files_total{{{where}}}[1h]))", "failed"),
            Query(f"sum(increase(basekeeper_touched_files_total{{{where}}}[1h]))", "touched"),
            Query(f"sum(increase(basekeeper_touch_failures_total{{{where}}}[1h]))", "not touched"),
        ),
        _graph(
            "Time of a pass, by phase",
            "Of the hour before: the mean, and what 95 of 100 passes were faster than. Observe looks, judge decides, "
            "act removes and looks again.",
            "s",
            *_times("phase", "basekeeper_pass_duration_seconds", where),
        ),
        _graph(
            "Time of looking, by source",
            "Of the hour before: the mean, and what 95 of 100 passes were faster than. The directory itself, libvirt, "
            "the disks' headers, locks and open files.",
            "s",
            *_times("source", "basekeeper_observe_duration_seconds", where),
        ),
        _graph(
            "Requests to the API server",
            "In the second, by the code of the answer; error: no answer came.",
            "reqps",
            Query(f"sum by (code) (rate(basekeeper_api_requests_total{{{where}}}[$__rate_interval]))", "{{code}}"),
        ),
    )


def _cache(where: str) -> tuple[Panel, ...]:
    """What both dashboards show of the cache."""
    return (
        _graph(
            "Cache by state",
            "What lies in the caches. Kept: something needs it, or it is too young. Held: it would go but for "
            "something that must be cleared first. Removable: it goes in this pass or a later one. Foreign: not "
            "nova's, never touched.",
            "bytes",
            Query(f"sum by (state) (basekeeper_cache_bytes{{{where}}})", "{{state}}"),
            Query(f"sum(basekeeper_quarantine_bytes{{{where}}})", "quarantine"),
            stacked=True,
        ),
        _graph(
            "Files by verdict and reason",
            "Why each file is still there; docs/evidence.md says what each reason means. And bases whose content is "
            "not known to be whole (docs/integrity.md): pending ones have no baseline yet.",
            "short",
            Query(f"sum by (verdict, reason) (basekeeper_files{{{where}}}) > 0", "{{verdict}}: {{reason}}"),
            Query(f'sum by (state) (basekeeper_integrity_files{{{where}, state!="whole"}})', "content: {{state}}"),
            stacked=True,
        ),
        _graph(
            "What holds removals",
            "Holds by reason: paths that cannot be read, instances that are starting, anomalies. `basekeeper hold "
            "list` on the node names them. And nodes that want room: disk or cache are over the policy's marks.",
            "short",
            Query(f"sum by (reason) (basekeeper_holds{{{where}}}) > 0", "{{reason}}"),
            Query(f'sum by (state) (basekeeper_pressure{{{where}, state!="Below"}})', "wants room: {{state}}"),
            stacked=True,
        ),
        _graph(
            "Directories without a domain",
            "Orphaned instance directories that nothing has changed for a day: failed deletions, resizes, evacuations. "
            "`basekeeper orphans` on the node names them.",
            "short",
            Query(f"sum(basekeeper_orphaned_directories{{{where}}})", "directories"),
        ),
        _graph(
            "What they hold back",
            "Bytes of the orphaned directories, and of the bases that nothing else needs.",
            "bytes",
            Query(f"sum(basekeeper_orphaned_bytes{{{where}}})", "directories"),
            Query(f"sum(basekeeper_orphaned_alone_bytes{{{where}}})", "bases kept by them alone"),
        ),
    )


def fleet() -> Dashboard:
    """All nodes at once."""
    used = (
        f"1 - max {_BY_NODE} (basekeeper_filesystem_available_bytes{{{_FLEET}}})"
        f" / max {_BY_NODE} (basekeeper_filesystem_size_bytes{{{_FLEET}}})"
    )
    since = f"max {_BY_NODE} (basekeeper_breaker_since_timestamp_seconds{{{_FLEET}}})"
    glance = (
        _stat("Nodes", "Nodes that follow a policy, as the controller counts them.", "short",
              f"sum(basekeeper_nodes{{{_FLEET}}})"),
        _stat("In trouble", "Nodes that fail, have an open breaker, or do not report.", "short",
              f'sum(basekeeper_nodes{{{_FLEET}, state=~"Failing|BreakerOpen|Missing|Stale"}})', alarm=1),
        _stat("Reclaimable", "Bytes that may go now. In Audit: what Enforce would get back.", "bytes",
              f"sum(basekeeper_reclaimable_bytes{{{_FLEET}}})"),
        _stat("In quarantine", "Bytes that were removed, can still be put back, and come free by themselves.", "bytes",
              f"sum(basekeeper_quarantine_bytes{{{_FLEET}}})"),
        _stat("Freed", "Bytes that were purged within the time shown.", "bytes",
              f"sum(increase(basekeeper_purged_bytes_total{{{_FLEET}}}[$__range]))"),
        _stat("Removals undone", "Removed files that were needed and went back within the time shown. Should be 0.",
              "short", f"sum(increase(basekeeper_restored_files_total{{{_FLEET}, {_UNDONE}}}[$__range]))", alarm=1),
    )  # fmt: skip
    worst = Panel(
        "Nodes, the fullest first",
        "The 20 nodes with the fullest disks: how full, what may go, what waits in the quarantine, what is held, "
        "how long ago a pass succeeded, and for how long the breaker has been open.",
        "table", "short", width=14, height=10,
        queries=(
            Query(f"topk(20, {used})"),
            Query(f"max {_BY_NODE} (basekeeper_reclaimable_bytes{{{_FLEET}}})"),
            Query(f"max {_BY_NODE} (basekeeper_quarantine_bytes{{{_FLEET}}})"),
            Query(f'sum {_BY_NODE} (basekeeper_cache_files{{{_FLEET}, state="held"}})'),
            Query(f"time() - max {_BY_NODE} (basekeeper_last_success_timestamp_seconds{{{_FLEET}}} > 0)"),
            Query(f"(time() - {since}) * ({since} > bool 0)"),
        ),
        columns=(("node", "Node", ""), ("Value #A", "Disk used", "percentunit"), ("Value #B", "Reclaimable", "bytes"),
                 ("Value #C", "In quarantine", "bytes"), ("Value #D", "Held files", "short"),
                 ("Value #E", "Since last success", "s"), ("Value #F", "Breaker open for", "s")),
    )  # fmt: skip
    fullest = _graph("Fullest disks", "The file systems of the caches, the ten fullest.", "percentunit",
                     Query(f"topk(10, {used})", "{{node}}"), warn=0.9, maximum=1)  # fmt: skip
    nodes = (
        worst,
        Panel("Nodes by state", "Each node in one state, the worst that fits; docs/conditions.md says what they mean.",
              "timeseries", "short", (Query(f"sum by (state) (basekeeper_nodes{{{_FLEET}}})", "{{state}}"),),
              width=10, height=10, stacked=True),
    )  # fmt: skip
    rollout = (
        _graph("Rollout", "Nodes that wait for their wave of a change that makes them more aggressive, and whether the "
               "rollout has stopped for a node in trouble (1).", "short",
               Query(f"sum(basekeeper_rollout_waiting_nodes{{{_FLEET}}})", "waiting"),
               Query(f"max(basekeeper_rollout_stopped{{{_FLEET}}})", "stopped")),
        _graph("Releases", "Programs by the release that runs.", "short",
               Query(f"count by (version) (basekeeper_build_info{{{_FLEET}}})", "{{version}}"), stacked=True),
        _graph("Generation in force", "Nodes by the generation of the policy that their last pass ran under; 0: none. "
               "Two policies have generations of their own.", "short",
               Query(f'count_values("generation", basekeeper_policy_generation_applied{{{_FLEET}}})',
                     "generation {{generation}}"), stacked=True),
        _graph("Policies, enforcing, watching", "Policies that there are, nodes that remove, nodes that have a "
               "maintenance window open, or none to wait for, and programs that hear nothing from the API server. And "
               "bases of one name whose content differs between nodes; docs/integrity.md says what each kind means.",
               "short",
               Query(f"sum(basekeeper_policies{{{_FLEET}}})", "policies"),
               Query(f"sum(basekeeper_enforcing{{{_FLEET}}})", "enforcing"),
               Query(f"sum(basekeeper_window_open{{{_FLEET}}})", "window open"),
               Query(f"sum(1 - basekeeper_watch_up{{{_FLEET}}})", "watch down"),
               Query(f"max by (kind) (basekeeper_disagreements{{{_FLEET}}})", "bases differ: {{kind}}")),
        _graph("Lag of the policies' status", "For how long a policy's status has not said what it should. Up to 30 s "
               "is how it works.", "s", Query(f"max(basekeeper_rollup_lag_seconds{{{_FLEET}}})", "lag"), warn=60),
        _graph("Time of a reconciliation", "95 of 100 of the hour before were faster.", "s",
               Query("histogram_quantile(0.95, sum by (le) "
                     f"(rate(basekeeper_reconcile_duration_seconds_bucket{{{_FLEET}}}[1h])))", "controller")),
    )  # fmt: skip
    return Dashboard(
        _FLEET_UID,
        "basekeeper / Fleet",
        "Caches of base images on all compute nodes: what may go, what went, what is held and why.",
        (_CLUSTER, _NAMESPACE),
        (
            Row("At a glance", glance),
            Row("Caches", (*_cache(_FLEET), fullest)),
            Row("Nodes", nodes),
            Row("Passes", _passes(_FLEET)),
            Row("Controller and rollout", rollout),
        ),
        links=(("One node", NODE_UID),),
    )


def node() -> Dashboard:
    """One node."""
    yes_no = (("0", "no", "red"), ("1", "yes", "green"))
    glance = (
        _stat("Removes", "Whether the policy in force is Enforce and not suspended.", "short",
              f"max(basekeeper_enforcing{{{_NODE}}})", values=(("0", "no", "blue"), ("1", "yes", "green"))),
        _stat("Since last success", "Since a pass ended without failure. More than three intervals is an alert.", "s",
              f"time() - max(basekeeper_last_success_timestamp_seconds{{{_NODE}}} > 0)"),
        _stat("Breaker closed", "Whether the evidence can be trusted. If not, nothing is removed; status.breaker says "
              "which trip it is and what ends it.", "short",
              f"1 - max(basekeeper_breaker_open{{{_NODE}}})", values=yes_no),
        _stat("libvirt answers", "Whether libvirt listed all domains in the last pass, or there is none to ask.",
              "short", f"max(basekeeper_libvirt_reachable{{{_NODE}}})", values=yes_no),
        _stat("Reclaimable", "Bytes that may go now.", "bytes", f"sum(basekeeper_reclaimable_bytes{{{_NODE}}})"),
        _stat("In quarantine", "Bytes that were removed and can still be put back.", "bytes",
              f"sum(basekeeper_quarantine_bytes{{{_NODE}}})"),
        _stat("nova touches", "Whether nova's own manager touches the bases of its instances. No figure: not known.",
              "short", f"max(basekeeper_nova_touches{{{_NODE}}})", values=yes_no),
        _stat("nova removes", "Whether nova's own manager removes bases too. No figure: not known.", "short",
              f"max(basekeeper_nova_removes{{{_NODE}}})", values=(("0", "no", "green"), ("1", "yes", "red"))),
    )  # fmt: skip
    disk = _graph(
        "File system of the cache",
        "Its size, what is used, and what of that is the cache with its quarantine.",
        "bytes",
        Query(f"max(basekeeper_filesystem_size_bytes{{{_NODE}}})", "size"),
        Query(
            f"max(basekeeper_filesystem_size_bytes{{{_NODE}}}) - max(basekeeper_filesystem_available_bytes{{{_NODE}}})",
            "used",
        ),
        Query(f"sum(basekeeper_cache_bytes{{{_NODE}}}) + sum(basekeeper_quarantine_bytes{{{_NODE}}})", "cache"),
    )
    # The controller may run on this node as well.
    own = "and on (cluster, namespace, pod) basekeeper_interval_seconds"
    agent = (
        _graph("Memory of the agent", "Resident. And what it reads in a second to verify bases.", "bytes",
               Query(f"max(process_resident_memory_bytes{{{_NODE}}} {own})", "memory"),
               Query(f"sum(rate(basekeeper_verified_bytes_total{{{_NODE}}}[$__rate_interval]))", "read in a second")),
        _graph("Processor time of the agent", "Seconds in the second. And those in which it verified bases, waiting "
               "for maxBytesPerSecond included.", "short",
               Query(f"sum(rate(process_cpu_seconds_total{{{_NODE}}}[$__rate_interval]) {own})", "processor"),
               Query(f"sum(rate(basekeeper_verification_seconds_total{{{_NODE}}}[$__rate_interval]))", "verifying")),
        _graph("Orders", "Time between passes by the policy in force, and its generation; 0: none. Whether a "
               "maintenance window is open, or the policy has none to wait for (1). And for how many hours the least "
               "recently verified base was not verified.", "short",
               Query(f"(time() - min(basekeeper_oldest_verified_timestamp_seconds{{{_NODE}}})) / 3600"
                     f" * (min(basekeeper_oldest_verified_timestamp_seconds{{{_NODE}}}) > bool 0)",
                     "hours since a verification"),
               Query(f"max(basekeeper_interval_seconds{{{_NODE}}})", "interval in seconds"),
               Query(f"max(basekeeper_policy_generation_applied{{{_NODE}}})", "generation"),
               Query(f"max(basekeeper_window_open{{{_NODE}}})", "window open")),
        _graph("Hosts that share the storage", "With sharedStorage.mode: Coordinate: those that answered the latest "
               "round, and those that did not, which holds everything; whether this one leads; how many rounds an hour "
               "has; and by how many seconds the file server's clock is ahead.", "short",
               Query(f'max(basekeeper_shared_hosts{{{_NODE}, state="answered"}})', "answered"),
               Query(f'max(basekeeper_shared_hosts{{{_NODE}, state="silent"}})', "silent"),
               Query(f"max(basekeeper_shared_leader{{{_NODE}}})", "leads"),
               Query(f"max(delta(basekeeper_shared_round{{{_NODE}}}[1h]))", "rounds in an hour"),
               Query(f"max(basekeeper_shared_clock_skew_seconds{{{_NODE}}})", "clock")),
        _graph("Watch", "1 while the agent hears from the API server.", "short",
               Query(f"min(basekeeper_watch_up{{{_NODE}}} {own})", "up"), maximum=1),
    )  # fmt: skip
    return Dashboard(
        NODE_UID,
        "basekeeper / Node",
        "The cache of base images of one compute node, and the agent that keeps it.",
        (_CLUSTER, _NAMESPACE, _ONE_NODE),
        (
            Row("At a glance", glance),
            Row("Cache", (*_cache(_NODE), disk)),
            Row("Passes", _passes(_NODE)),
            Row("Agent", agent),
        ),
        links=(("Fleet", _FLEET_UID),),
    )


def files() -> dict[str, str]:
    """Each file of the checkout that is made here, by its path from the top."""
    return {"deploy/dashboards/fleet.json": fleet().text(), "deploy/dashboards/node.json": node().text()}
