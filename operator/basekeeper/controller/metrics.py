"""What the controller counts."""

from basekeeper.cluster.metrics import ProgramMetrics
from basekeeper.resources.image_cache_policy import DisagreementKind, NodeState


class Metrics(ProgramMetrics):
    """The controller's metrics."""

    def __init__(self) -> None:
        super().__init__("the watches on policies, nodes, agents' pods and the nodes' objects run")
        self.policies = self.gauge("basekeeper_policies", "policies that there are")
        self.nodes = self.gauge(
            "basekeeper_nodes", "nodes that follow a policy, each in one state", {"state": NodeState}
        )
        self.disagreements = self.gauge(
            "basekeeper_disagreements",
            "bases of which not all nodes have the same content: `Suspect`, one node alone differs from at least two "
            "that agree; `Undecided`, no two agree; `Variants`, other conversions of the image, no damage",
            {"kind": DisagreementKind},
        )
        self.waiting = self.gauge("basekeeper_rollout_waiting_nodes", "nodes that wait for their wave of a rollout")
        self.stopped = self.gauge(
            "basekeeper_rollout_stopped", "1 while a rollout waits until nodes that it has told are well again"
        )
        self.lag = self.gauge(
            "basekeeper_rollup_lag_seconds",
            "for how long the status of a policy has not said what it should, the longest of all policies; 0 when all "
            "are written. Up to 30 is how it works: no status is written more often",
        )
        self.reconcile_seconds = self.histogram(
            "basekeeper_reconcile_duration_seconds", "how long it took to compute and write everything"
        )
        self.listed = self.gauge(
            "basekeeper_last_list_timestamp_seconds", "when everything was last listed anew; 0 before the first time"
        )
