"""Which node follows which policy. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from basekeeper.resources.conditions import Why
from basekeeper.resources.image_cache_policy import LabelExpression, LabelOperator, LabelSelector

from .snapshots import Node, Policy


@dataclass(frozen=True, slots=True)
class Match:
    """The policies that select a node."""

    winner: Policy | None = None
    """It may be one that is not accepted: then the node follows none, rather than one that had to stand back."""
    losers: tuple[Policy, ...] = ()


def match(node: Node, policies: Iterable[Policy]) -> Match:
    """Who wins a node: the higher priority, then the older policy, then the first name."""
    found = sorted((policy for policy in policies if _selects(policy.selector, node)), key=_precedence)
    return Match(found[0], tuple(found[1:])) if found else Match()


def why(winner: Policy, loser: Policy) -> Why:
    """What decided between two policies."""
    ours, theirs = _precedence(winner), _precedence(loser)
    if ours[0] != theirs[0]:
        return Why.HIGHER_PRIORITY
    return Why.OLDER_POLICY if ours[1] != theirs[1] else Why.FIRST_NAME


def _precedence(policy: Policy) -> tuple[int, float, str]:
    return -policy.priority, policy.created, policy.name


def _selects(selector: LabelSelector | None, node: Node) -> bool:
    if selector is None:
        return True
    labels = node.labels
    same = all(labels.get(key) == value for key, value in selector.match_labels.items())
    return same and all(_holds(expression, labels) for expression in selector.match_expressions)


def _holds(expression: LabelExpression, labels: Mapping[str, str]) -> bool:
    """As Kubernetes' own selectors: NotIn holds for a node without the label."""
    value = labels.get(expression.key)
    match expression.operator:
        case LabelOperator.IN:
            return value is not None and value in expression.values
        case LabelOperator.NOT_IN:
            return value is None or value not in expression.values
        case LabelOperator.EXISTS:
            return value is not None
        case LabelOperator.DOES_NOT_EXIST:
            return value is None
