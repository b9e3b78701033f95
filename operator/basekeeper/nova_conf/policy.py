"""Turns a nova.conf into the `ImageCachePolicy` that does what that nova.conf did.

Each line of the manifest says in a comment which line of the nova.conf it comes from. What cannot be carried
over is said, never guessed: as a warning, which also stands at the top of the manifest. Where nova.conf and
safety disagree (nova's locks switched off) the manifest is the safe one and says why.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from basekeeper.resources.image_cache_policy import API_VERSION, KIND
from basekeeper.resources.manifest import parse
from basekeeper.resources.quantities import MAX_DURATION, format_duration

from . import options
from .options import CURRENT, OPTIONS, age
from .reader import NovaConf, Setting, printable

MIN_INTERVAL = 60
MIN_AGE = 600
MIN_VERIFICATION = 3600
"""Seconds; the floors of the custom resource, below which a cluster refuses the manifest."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """A manifest and what its reader should know."""

    manifest: str
    warnings: tuple[str, ...]


@dataclass
class _Draft:
    """What has been found so far."""

    conf: NovaConf
    lines: list[tuple[str, str]] = field(default_factory=list)
    """Lines of the manifest, each with its comment."""
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, line: str, comment: str = "") -> None:
        self.lines.append((line, comment))


def convert(conf: NovaConf, name: str) -> Conversion:
    """Write the manifest of a policy called `name`; PolicyError if Kubernetes would refuse that name."""
    parse({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": {"mode": "Audit"}}, "--name")
    draft = _Draft(conf)
    _mode(draft)
    _interval(draft)
    _ages(draft)
    _cached_only(draft)
    _integrity(draft)
    draft.warnings += conf.ignored()
    draft.notes += [*_places(conf), *_notes(conf)]
    return Conversion(_render(draft, name), tuple(draft.warnings))


def _mode(draft: _Draft) -> None:
    remove, no_locking = draft.conf.get(options.REMOVE), draft.conf.get(options.NO_LOCKING)
    if no_locking.value:
        draft.add("mode: Audit", no_locking.origin)
        draft.warnings.append(
            f"{no_locking.origin}: nova takes no locks between processes, so nothing keeps it from using a file that is"
            " being removed; do not use Enforce before locking is on again"
        )
    elif remove.value:
        draft.add("mode: Enforce", remove.origin)
        draft.notes.append("Start with mode: Audit to see what it would do; Enforce is what that nova.conf did.")
    else:
        draft.add("mode: Audit", f"nova removed nothing: {remove.origin}")
    if remove.value:
        draft.warnings.append(
            f"hand-over: before Enforce, set {options.REMOVE.spelling_in(draft.conf.release)} = false in nova.conf and"
            " keep the manager's interval, so that nova still touches what it uses and registers its host, and only one"
            " program removes"
        )


def _interval(draft: _Draft) -> None:
    setting = draft.conf.get(options.MANAGER_INTERVAL)
    for switch in (options.PERIODIC, options.EXTERNAL_PERIODIC):
        if not draft.conf.get(switch).value:
            _suspend(draft, draft.conf.get(switch))
            return
    seconds, how = _seconds(draft.conf, setting)
    if seconds is None:
        _suspend(draft, setting)
        return
    if seconds < MIN_INTERVAL:
        how += f"; raised from {seconds} s, {format_duration(MIN_INTERVAL)} is the least"
    if draft.conf.release == "folsom" and setting.assignment is None:
        draft.warnings.append("Folsom's stable updates (2012.2.1 and later) had the cache manager off by default")
    draft.add(f"interval: {_duration(max(seconds, MIN_INTERVAL))}", how)


def _seconds(conf: NovaConf, setting: Setting) -> tuple[int | None, str]:
    """Return the seconds between two passes of nova's manager, None if it never ran, and how they came about."""
    if age(conf.release) <= age("folsom"):
        tick = conf.get(options.PERIODIC_INTERVAL)
        runs = setting.number > 0 and tick.number > 0
        how = f"{setting.origin}, in ticks of {tick.number} s ({tick.origin})"
        return (setting.number * tick.number if runs else None), how
    if setting.number == 0 and age(conf.release) >= age("kilo"):
        return 60, f"{setting.origin}, which is every 60 s since Kilo"
    return (setting.number if setting.number > 0 else None), setting.origin


def _suspend(draft: _Draft, why: Setting) -> None:
    draft.add("suspend: true", f"nova's cache manager never ran: {why.origin}")
    draft.warnings.append(
        f"{why.origin}: nova's cache manager never ran, so the policy is suspended; nova then neither touches the bases"
        " that it uses nor registers its host in compute_nodes, so let it run, with removal off, before Enforce"
    )


def _ages(draft: _Draft) -> None:
    original, resized = draft.conf.get(options.ORIGINAL_AGE), draft.conf.get(options.RESIZED_AGE)
    same = "nova uses the age of originals"
    if age(draft.conf.release) < age("kilo"):
        same = f"{draft.conf.release.title()} never removed them; later releases use the age of originals"
    draft.add("minimumAge:")
    for name, setting, comment in (
        ("original", original, original.origin),
        ("resized", resized, resized.origin),
        ("swap", original, same),
        ("ephemeral", original, same),
    ):
        raised = "" if setting.number >= MIN_AGE else f"; raised from {setting.number} s, 10m is the least"
        draft.add(f"  {name}: {_duration(max(setting.number, MIN_AGE))}", comment + raised)
    draft.add("  partial: 24h", "nova never removes leftovers of downloads; basekeeper's default")


def _duration(seconds: int) -> str:
    """Write nova's seconds, of which there may be more than a duration can hold."""
    return format_duration(min(seconds, int(MAX_DURATION)))


def _cached_only(draft: _Draft) -> None:
    kind, cow = draft.conf.get(options.IMAGES_TYPE), draft.conf.get(options.USE_COW)
    why = "nova keeps the bases of its instances' images"
    overlays = kind.value == "qcow2" or (kind.value == "default" and bool(cow.value))
    if not overlays:
        setting = cow if kind.value == "default" else kind
        why = f"as nova; no disk needs a base ({setting.origin}), Remove would free them and download them again"
    draft.add("cachedOnly: Keep", why)


def _integrity(draft: _Draft) -> None:
    """What nova's checksums did, on the releases that had them."""
    wanted, every = draft.conf.get(options.CHECKSUMS), draft.conf.get(options.CHECKSUM_INTERVAL)
    if not wanted.value:
        return
    raised = "" if every.number >= MIN_VERIFICATION else f"; raised from {every.number} s, 1h is the least"
    draft.add("integrity:", wanted.origin)
    draft.add(f"  interval: {_duration(max(every.number, MIN_VERIFICATION))}", every.origin + raised)
    draft.notes.append("nova wrote a log line about a base that changed; basekeeper removes it if nothing uses it.")


def _places(conf: NovaConf) -> Iterator[str]:
    """Say which options of basekeeper's command line, and so of its chart, carry the paths and names."""
    instances, base = conf.get(options.INSTANCES_PATH), conf.get(options.SUBDIRECTORY)
    wanted = []
    if instances.text != "/var/lib/nova/instances":
        wanted.append(("--instances-path", instances.text, instances))
    if base.text != "_base":
        wanted.append(("--base-dir", f"{instances.text}/{base.text}", base))
    snapshots, host = conf.get(options.SNAPSHOTS), conf.get(options.HOST)
    if snapshots.text != f"{instances.text}/snapshots":
        wanted.append(("--snapshots-dir", snapshots.text, snapshots))
    if host.value is not None:
        wanted.append(("--nova-host", host.text, host))
    for option, value, setting in wanted:
        fill_in = "; fill in what $ stands for on each node" if "$" in value else ""
        yield f"Not part of a policy: give the agent {option} {value} ({setting.origin}){fill_in}"


def _notes(conf: NovaConf) -> Iterator[str]:
    """Say of each option that is set and has no field what basekeeper does about it."""
    for option in OPTIONS:
        setting = conf.get(option)
        if option.note and setting.assignment and str(setting.value).lower() != option.default:
            yield f"{setting.origin}: {option.note}"


def _render(draft: _Draft, name: str) -> str:
    reader = "as nova reads it today" if draft.conf.release == CURRENT else f"as {draft.conf.release.title()} read it"
    head = [
        f"What {draft.conf.path} did, {reader}.",
        *draft.notes,
        "nova has no limits and no quarantine: basekeeper's defaults hold (20 files and 25 % a pass, put back for 6h).",
        *(f"WARNING: {warning}" for warning in draft.warnings),
    ]
    lines = [f"# {printable(line)}" for line in head]
    lines += [f"apiVersion: {API_VERSION}", f"kind: {KIND}", "metadata:", f'  name: "{name}"', "spec:"]
    lines += [f"  {line}" + (f"  # {printable(comment)}" if comment else "") for line, comment in draft.lines]
    return "\n".join(lines) + "\n"
