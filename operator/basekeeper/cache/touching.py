"""Keeps nova's own manager from removing what basekeeper knows to be used: `touchInUse`.

nova removes a base whose mtime is as old as its minimum age, and refreshes only those that its database knows. What a
chain, a rescue disk or a leftover directory alone needs gets no touch from it. So a base in use whose stamp is older
than a quarter of that age gets a new one: where nova touches by itself, every stamp is younger than that, and nothing
is done here. A base that libvirt gave to qemu's user is not nova's user's to touch: that is told, and no failure.
"""

import os
import stat
import time

from .acts import NotTouched, Touched, failure_of
from .evidence import CachedFile
from .files import DIRECTORY, FILE, open_quietly, why
from .names import Kind
from .plan import Plan
from .settings import Host, NovaSays, Policy
from .verdicts import USE_REASONS

_PART = 4
_KINDS = frozenset({Kind.ORIGINAL, Kind.RESIZED, Kind.SWAP, Kind.EPHEMERAL})
"""What nova's manager removes."""


def touch_in_use(host: Host, policy: Policy, plan: Plan, now: float) -> Touched:
    """Give a fresh time stamp to each base in use whose own is old at `now`, Unix seconds. Raises nothing."""
    old = [
        judged.file
        for judged in plan.files
        if judged.reason in USE_REASONS
        and judged.file.name.kind in _KINDS
        and now - judged.file.mtime > _limit(judged.file.name.kind, policy, host.nova_says)
    ]
    if not old:
        return Touched()
    try:
        base = open_quietly(bytes(host.base), DIRECTORY)
    except OSError as error:
        return Touched(failures=(NotTouched(f"{host.base}: {error.strerror}", failure_of(error)),))
    stamps: dict[bytes, float] = {}
    failures: list[NotTouched] = []
    try:
        for file in old:
            try:
                stamp = _touch(base, file)
            except OSError as error:
                path = bytes(host.base) + b"/" + file.name.raw
                failures.append(NotTouched(f"{file.name}: {why(error, path)}", failure_of(error)))
                continue
            if stamp is not None:
                stamps[file.name.raw] = stamp
    finally:
        os.close(base)
    return Touched(stamps, tuple(failures))


def _limit(kind: Kind, policy: Policy, says: NovaSays | None) -> float:
    """Seconds after which a stamp is too old. The policy's ages are made from nova's: the shorter counts."""
    nova = says if says is not None and says.problem is None else NovaSays()
    return max(0.0, min(nova.age_of(kind), policy.minimum_age.of(kind))) / _PART


def _touch(base: int, file: CachedFile) -> float | None:
    """Stamp the very file that was judged, by its descriptor; None if its name leads to something else now."""
    try:
        descriptor = open_quietly(file.name.raw, FILE | os.O_NOFOLLOW, base)
    except FileNotFoundError:
        return None
    try:
        found = os.fstat(descriptor)
        same = stat.S_ISREG(found.st_mode) and (found.st_dev, found.st_ino) == file.inode
        if not same or found.st_mtime != file.mtime:
            return None  # another file, or somebody has just touched it
        os.utime(descriptor, ns=(found.st_atime_ns, time.time_ns()))
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
