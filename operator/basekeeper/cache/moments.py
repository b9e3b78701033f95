"""How instants are written. Pure: every instant is an argument."""

from datetime import UTC, datetime

_LAST = 253402300799.0


def timestamp(seconds: float) -> str:
    """Write Unix seconds as Kubernetes writes times; out of range: the nearest that can be written."""
    return _written(seconds, "%Y-%m-%dT%H:%M:%SZ")


def compact(seconds: float) -> str:
    """Write Unix seconds so that they can be part of a name: `20261124T101500Z`."""
    return _written(seconds, "%Y%m%dT%H%M%SZ")


def _written(seconds: float, form: str) -> str:
    return datetime.fromtimestamp(min(max(seconds, 0.0), _LAST), UTC).strftime(form)
