"""How sentences say sizes, shares and the first of many."""

from collections.abc import Sequence


def format_size(count: int) -> str:
    """Write bytes as people read them: `1.5 GiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024 or unit == "PiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable: the last unit always returns")


def format_percent(percent: float) -> str:
    """Write a share as people read it: `85 %`, `91.2 %`."""
    return f"{round(percent, 1):g} %"


def some(names: Sequence[str], most: int) -> str:
    """Name at most so many of these, and count the others: `a, b and 3 more`."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
