"""Beside guests: passes while 20 domains run and libvirtd is quick, slow or hung, and an agent's share of a core.

The domains are real (qemu without acceleration), on overlays of a tree of 500 instances, in a libvirtd of their own. A
slow libvirtd is that same one behind a socket that holds each of its answers back for 50 ms; a hung one is stopped by a
signal. Beside a pass stand a pass that asks no libvirt, and virsh, which asks what any program must ask. Then a real
agent works on that node against a real API server: first at rest, scraped and probed as in production, then for
`--seconds` with a pass as soon as the one before has ended. From both follows its share of a core at any interval.
"""

import argparse
import contextlib
import dataclasses
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path

from basekeeper.cache import engine
from basekeeper.cache.report import Outcome, Report
from basekeeper.cache.settings import Host, Mode, Policy
from benchmarks import measuring
from benchmarks.clouds import Passes, cloud, ready, tell
from benchmarks.measuring import Document, Spread, Table, Target, timed
from benchmarks.processes import cpu, held, waited
from benchmarks.trees import build
from lab.compute_node import CommandTimeoutError, ComputeNode
from lab.domain_xml import Disk, NovaMetadata, domain_xml
from lab.nova_tree import DAY, NovaTree
from tests.cluster.fleet import Fleet, Program, eventually

NODE = "guests"
BASES = 20
INTERVAL = 2400.0
"""Seconds between passes by default."""
DELAY = 0.05
MOST_SHARE = 0.001
MOST_MIB = 100.0
LEAST_INTERVAL = 60.0
ASKED = {"/metrics": 30.0, "/livez": 10.0, "/readyz": 5.0}
"""Seconds between two requests: Prometheus' and, by the chart, the kubelet's."""
SETTLES = 8.0
"""Seconds after a start in which a second pass may follow the first one: the watch tells what is known already."""
RENEW_EVERY = 1200.0
"""Seconds between tokens: one lives for an hour, as long as the longest of these runs."""
ENFORCE = Policy(mode=Mode.ENFORCE)
STARTS_WITHIN = 60.0


def main() -> None:
    """Start the guests, measure, tell."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--instances", type=int)
    parser.add_argument("--domains", type=int)
    parser.add_argument("--runs", type=int)
    parser.add_argument("--seconds", type=float, help="of passes without a pause; 3600 for the hour (default: 300)")
    parser.add_argument("--rest", type=float, help="seconds of the agent at rest (default: 180)")
    given = parser.parse_args()
    given.instances = given.instances or (60 if given.quick else 500)
    given.domains = given.domains or (3 if given.quick else 20)
    given.runs = given.runs or (2 if given.quick else 9)
    given.seconds = given.seconds or (2 if given.quick else 300)
    given.rest = given.rest or (1 if given.quick else 180)
    document = Document("guests")
    with cloud() as fleet, ComputeNode("bench") as node:
        tree = fleet.tree(NODE)
        names = start_guests(node, build(tree, given.instances, BASES), given.domains)
        state = fleet.state("engine")
        with_libvirt(document, node, host_of(tree, state, node.read_only_uri), names, given)
        tell(fleet, (NODE,))
        options = ("--libvirt", node.read_only_uri)
        agent = fleet.start_agent(NODE, *options)
        eventually(lambda: ready(agent), "the agent is ready", STARTS_WITHIN)
        share(document, fleet, agent, node, names, given)
    measuring.finish(document, given)


# --- the node ------------------------------------------------------------------------------------------------------


def start_guests(node: ComputeNode, directories: Sequence[Path], count: int) -> list[str]:
    """Run so many domains, on disks that are spread over the bases; their names."""
    names: list[str] = []
    for number, directory in enumerate(directories[:: len(directories) // count][:count]):
        name = f"instance-{number:08x}"
        disk, metadata = Disk(directory / "disk"), NovaMetadata()
        node.create(domain_xml(name, uuid=directory.name, disks=[disk], metadata=metadata, memory_mib=64))
        names.append(name)
    running = node.domains(all_of_them=False)
    assert len(running) == count, f"expected {count} running domains, libvirt names {len(running)}"
    return names


def host_of(tree: NovaTree, state: Path, uri: str) -> Host:
    """The node as an agent sees it."""
    return Host(
        node="bench",
        instances=tree.instances_path,
        base=tree.base_dir,
        snapshots=tree.instances_path / "snapshots",
        state=state,
        libvirt=uri,
        spawn_grace=0.0,  # nothing spawns here, but all of the tree is minutes old
    )


@contextlib.contextmanager
def slow(node: ComputeNode, delay: float) -> Iterator[str]:
    """The URI of the node's libvirtd behind a socket that holds back its answers, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="bk-slow-") as place:
        path = Path(place) / "socket"
        program = Path(__file__).with_name("slow_socket.py")
        command = [sys.executable, "-I", str(program), str(node.read_only_socket), str(path), str(delay)]
        relay = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert relay.stdout is not None
            assert relay.stdout.readline() == "ready\n", "the slow socket does not listen"
            yield f"qemu+unix:///system?socket={path}"
        finally:
            relay.communicate()  # its standard input ends, and with it the relay


# --- passes --------------------------------------------------------------------------------------------------------


@dataclass
class Case:
    """One way to ask what is in use, and what it took."""

    what: str
    work: Callable[[], object]
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    """Of the program and of what it started."""
    libvirtd: list[float] = field(default_factory=list)

    def measure(self, libvirtd: int) -> None:
        """Do it once more."""
        before, theirs = own_cpu(), cpu(libvirtd)
        self.seconds.append(timed(self.work))
        self.processor.append(own_cpu() - before)
        self.libvirtd.append(cpu(libvirtd) - theirs)

    def row(self) -> tuple[str, ...]:
        """As a table has it."""
        used = (Spread.of(values).shown("ms", 1000) for values in (self.processor, self.libvirtd))
        return (self.what, Spread.of(self.seconds).shown(), *used)


def own_cpu() -> float:
    """Seconds of processor time of this process and of its children that have ended."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in spent)


def with_libvirt(
    document: Document, node: ComputeNode, host: Host, names: Sequence[str], given: argparse.Namespace
) -> None:
    """Passes and virsh in turns, quick and slow; then passes while libvirtd hangs."""
    libvirtd = node.libvirtd_pid
    assert libvirtd is not None
    asked = "; ".join(["list --all", *(f"dumpxml {name}; dumpxml --inactive {name}" for name in names)])
    with slow(node, DELAY) as slow_uri:
        cases = [
            Case("pass that asks no libvirt", lambda: passed(replace(host, libvirt=None))),
            Case("pass", lambda: passed(host)),
            Case("virsh, one for all", lambda: virsh(node.read_only_uri, asked)),
            Case("virsh, one for each answer", lambda: apart(node.read_only_uri, asked.split("; "))),
            Case("pass, slow libvirtd", lambda: passed(replace(host, libvirt=slow_uri))),
            Case("virsh, one for all, slow libvirtd", lambda: virsh(slow_uri, asked)),
        ]
        for _ in range(given.runs):
            for case in cases:
                case.measure(libvirtd)
    assert min(cases[4].seconds) > DELAY * len(names), "the slow libvirtd was not slow"
    title = f"a pass beside {len(names)} running domains, {given.instances} instances"
    columns = ("", "time", "processor", "processor of libvirtd")
    note = f"Slow: each answer of libvirtd is held back for {DELAY * 1000:.0f} ms by a socket in between."
    document.tables.append(Table(title, columns, [case.row() for case in cases], (note,)))
    document.figures["passes"] = {
        case.what: {"seconds": case.seconds, "cpu": case.processor, "libvirtd": case.libvirtd} for case in cases
    }
    hung(document, node, replace(host, libvirt_timeout=1.0 if given.quick else host.libvirt_timeout))


def passed(host: Host) -> Report:
    """A pass as the agent makes it, of which nothing failed and nothing was held."""
    report = engine.run(host, ENFORCE, lambda _what, _at, _of: None, resident=True)
    assert report.outcome is Outcome.CLEAN, f"expected a clean pass, not {report.outcome}: {report.libvirt_failure}"
    return report


def virsh(uri: str, words: str) -> None:
    """Ask by virsh; its answers are read and left."""
    command = ["virsh", "--quiet", "--readonly", "--connect", uri, words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)


def apart(uri: str, questions: Sequence[str]) -> None:
    """Ask by virsh, by a process for each question."""
    for words in questions:
        virsh(uri, words)


def hung(document: Document, node: ComputeNode, host: Host) -> None:
    """Passes while libvirtd does not answer: they end, and what may go stays until it answers."""
    unused = NovaTree(host.instances).add_base("nobody's", age=9 * DAY, seed=999)
    times: list[float] = []
    node.pause_libvirtd()
    try:
        for _ in range(2):  # the second finds the first one's call still waiting
            began = time.perf_counter()
            report = engine.run(host, ENFORCE, lambda _what, _at, _of: None, resident=True)
            times.append(time.perf_counter() - began)
            assert report.libvirt_failure is not None, "libvirtd was stopped and the pass took it for well"
            assert report.holds, "a hung libvirtd held nothing"
            assert unused.exists(), "a base went while libvirtd hung"
        patience = host.libvirt_timeout * 2
        try:
            node.virsh("list", timeout=patience)
        except CommandTimeoutError:
            theirs = f"no end within {patience:g} s"
        else:
            raise AssertionError("virsh had an answer of a libvirtd that was stopped")
    finally:
        node.resume_libvirtd()
    asked = time.perf_counter()
    report = engine.run(host, ENFORCE, lambda _what, _at, _of: None, resident=True)
    after = time.perf_counter() - asked
    assert not unused.exists(), f"libvirtd answers again, and the unused base stays: {report.outcome}"
    rows = [
        ("pass", f"{times[0]:.2f} s", "the removal is held"),
        ("pass while the call of the one before hangs", f"{times[1]:.2f} s", "the removal is held"),
        ("virsh list", theirs, ""),
        ("pass once libvirtd goes on", f"{after:.2f} s", "the unused base goes"),
    ]
    title = f"libvirtd hangs; a call may take {host.libvirt_timeout:g} s"
    document.tables.append(Table(title, ("", "time", ""), rows))
    document.figures["hung"] = {"timeout": host.libvirt_timeout, "passes": times, "after": after}
    most = host.libvirt_timeout * 1.2 + 1
    document.targets.append(
        Target(
            "pass while libvirtd hangs",
            f"holds, and ends within {most:g} s",
            f"held, {max(times):.2f} s",
            max(times) <= most,
        )
    )


# --- the agent's share of a core -----------------------------------------------------------------------------------


class Attention:
    """What a cluster asks of an agent and gives it all the time: probes, scrapes, a new token."""

    def __init__(self, fleet: Fleet, agent: Program) -> None:
        self._fleet = fleet
        self._agent = agent
        begun = time.monotonic()
        self._due = dict.fromkeys(ASKED, begun)
        self._renew_at = begun + RENEW_EVERY

    def give(self) -> None:
        """Ask what is due to be asked."""
        now = time.monotonic()
        for path, due in self._due.items():
            if now >= due:
                self._due[path] = due + ASKED[path]
                status, said = self._agent.ask(path)
                assert status == HTTPStatus.OK, f"{path}: {status} {said}"
        if now >= self._renew_at:
            self._renew_at = now + RENEW_EVERY
            self._fleet.cluster.kubeconfig(self._fleet.token(NODE), self._agent.name)


@dataclass(frozen=True, slots=True)
class Used:
    """What processes had used of a processor at a moment, in seconds."""

    at: float
    agent: float
    libvirtd: float
    guests: float
    guests_waited: float

    @classmethod
    def now(cls, agent: int, libvirtd: int, guests: Sequence[int]) -> "Used":
        """So far."""
        theirs = sum(cpu(pid) for pid in guests)
        return cls(time.perf_counter(), cpu(agent), cpu(libvirtd), theirs, waited(guests))

    def since(self, before: "Used") -> "Used":
        """What was used since another moment; `at` is how long ago that was."""
        mine, theirs = dataclasses.astuple(self), dataclasses.astuple(before)
        return Used(*(now - then for now, then in zip(mine, theirs, strict=True)))

    def shares(self) -> tuple[str, ...]:
        """Of a core, each."""
        return tuple(f"{part / self.at:.3%}" for part in (self.agent, self.libvirtd, self.guests, self.guests_waited))


def share(
    document: Document,
    fleet: Fleet,
    agent: Program,
    node: ComputeNode,
    names: Sequence[str],
    given: argparse.Namespace,
) -> None:
    """The agent at rest, then at passes without a pause: what an hour costs at any interval."""
    assert agent.process is not None
    assert node.libvirtd_pid is not None
    pid, guests = agent.process.pid, [node.qemu_pid(name) for name in names]
    passes, attention = Passes(fleet, NODE, agent), Attention(fleet, agent)

    def used() -> Used:
        assert node.libvirtd_pid is not None
        return Used.now(pid, node.libvirtd_pid, guests)

    time.sleep(SETTLES)
    known = passes.look()
    began = used()
    while time.perf_counter() - began.at < given.rest:
        attention.give()
        time.sleep(0.1)
    rest = used().since(began)
    assert passes.look() == known, "the agent was to rest and made passes"
    resident = [held(pid).resident_mib]
    began = used()
    while time.perf_counter() - began.at < given.seconds:
        passes.make()
        attention.give()
        resident.append(held(pid).resident_mib)
    work = used().since(began)
    count = passes.look() - known
    assert count >= len(resident) - 1, "passes were asked for that were not made"
    told(document, rest, work, count, resident, given)


def told(
    document: Document, rest: Used, work: Used, count: int, resident: Sequence[float], given: argparse.Namespace
) -> None:
    """What it comes to."""
    at_rest = rest.agent / rest.at
    each = (work.agent - at_rest * work.at) / count
    of_libvirtd = (work.libvirtd - rest.libvirtd / rest.at * work.at) / count
    shares = {interval: at_rest + each / interval for interval in (INTERVAL, LEAST_INTERVAL)}
    during = [
        (f"at rest, {rest.at:.0f} s", *rest.shares()),
        (f"{count} passes without a pause, {work.at:.0f} s", *work.shares()),
    ]
    columns = ("share of a core", "agent", "libvirtd", "guests", "guests waited")
    note = "At rest it is watched, probed and scraped as in production. Guests are idle; `waited` is for a processor."
    title = f"an agent beside {given.domains} domains, {given.instances} instances"
    document.tables.append(Table(title, columns, during, (note,)))
    rows = [
        ("a pass: processor of the agent", f"{each * 1000:.1f} ms"),
        ("a pass: processor of libvirtd", f"{of_libvirtd * 1000:.1f} ms"),
        ("share of a core at rest", f"{at_rest:.4%}"),
        *((f"share of a core, a pass every {interval:g} s", f"{part:.4%}") for interval, part in shares.items()),
        ("resident", Spread.of(resident).shown("MiB")),
    ]
    reference = (
        "For comparison: nova's own pass over 500 instances, some 20 s of a processor every 2400 s, is 0.8 % of a core."
    )
    document.tables.append(Table("what an hour costs", ("", ""), rows, (reference,)))
    document.figures["share"] = {
        "rest": dataclasses.asdict(rest),
        "work": dataclasses.asdict(work),
        "passes": count,
        "each": each,
        "libvirtd_each": of_libvirtd,
        "shares": {f"{interval:g}": part for interval, part in shares.items()},
        "resident": [round(mib, 2) for mib in resident[:: max(1, len(resident) // 200)]],
    }
    where = f"agent, {given.instances} instances, {given.domains} domains"
    document.targets += [
        Target(
            f"{where}: share of a core at the default interval",
            f"at most {MOST_SHARE:.1%}",
            f"{shares[INTERVAL]:.3%}",
            shares[INTERVAL] <= MOST_SHARE,
        ),
        Target(f"{where}: resident", f"< {MOST_MIB:g} MiB", f"{max(resident):.1f} MiB", max(resident) < MOST_MIB),
    ]


if __name__ == "__main__":
    main()
