"""A real agent over 5,000 instances, against a real API server: its start, and what it holds after 1,000 passes.

The start is the time from the process's first moment until `/readyz` says yes and until its object tells of the first
pass, beside an interpreter that only imports what every such program imports. Memory, descriptors and threads are those
of one agent that makes pass after pass, each asked for by the annotation as soon as the one before has ended, beside a
second agent over the same tree that makes only its first one and rests.
"""

import argparse
import dataclasses
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks import measuring
from benchmarks.clouds import Passes, cloud, ready, tell
from benchmarks.measuring import Document, Spread, Table, Target, fit, timed
from benchmarks.processes import Held, cpu, held
from benchmarks.trees import build
from tests.cluster.fleet import Fleet, Program, eventually

WORKING, RESTING = "working", "resting"
BARE = "import kopf, kubernetes"
MOST_MIB = 100.0
DRIFT_MIB = 1.0
"""From the first passes after the warm-up to the last: what counts as flat."""
WARM_UP = 4
"""One of so many passes is warm-up. Python notes each part of a path in its table of interned strings; after some
40,000 of them, which are 175 passes, it makes that table anew and larger, once: 2 MiB, whatever the number of
instances."""
START_TAKES = 60.0
SAMPLES = 200
STRETCHES = 5
FEW = 2
"""Descriptors that may be open at one look and not at another: a request or a probe is under way."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Both agents after so many passes of the working one."""

    passes: int
    working: Held
    resting: Held


def main() -> None:
    """Start, watch, tell."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--instances", type=int)
    parser.add_argument("--bases", type=int, default=20)
    parser.add_argument("--passes", type=int)
    parser.add_argument("--starts", type=int)
    given = parser.parse_args()
    given.instances = given.instances or (200 if given.quick else 5000)
    given.passes = given.passes or (10 if given.quick else 1000)
    given.starts = given.starts or (1 if given.quick else 5)
    document = Document("agent")
    with cloud() as fleet:
        build(fleet.tree(WORKING), given.instances, given.bases)
        build(fleet.tree(RESTING), given.instances, given.bases)
        tell(fleet, (WORKING, RESTING))
        starts(document, fleet, given)
        passes(document, fleet, given)
    measuring.finish(document, given)


# --- start ---------------------------------------------------------------------------------------------------------


def starts(document: Document, fleet: Fleet, given: argparse.Namespace) -> None:
    """Start it several times; its ledger and its object are new each time."""
    bare: list[float] = []
    found: dict[str, list[float]] = {"ready": [], "reported": [], "cpu": []}
    for _ in range(given.starts):
        bare.append(timed(lambda: subprocess.run([sys.executable, "-c", BARE], check=True)))
        to_ready, to_report, used = start(fleet)
        found["ready"].append(to_ready)
        found["reported"].append(to_report)
        found["cpu"].append(used)
    document.figures["start"] = {"bare": bare, **found}
    rows: list[tuple[str, ...]] = [
        (f"python -c '{BARE}'", Spread.of(bare).shown()),
        ("agent: until it is ready", Spread.of(found["ready"]).shown()),
        ("agent: until its object tells of the first pass", Spread.of(found["reported"]).shown()),
        ("agent: processor until then", Spread.of(found["cpu"]).shown()),
    ]
    note = "With --start-jitter 0s; by default an agent begins at a random moment within 10 s."
    document.tables.append(Table(f"start, {given.instances} instances", ("", "time"), rows, (note,)))


def start(fleet: Fleet) -> tuple[float, float, float]:
    """Seconds until ready, until reported, and of the processor until then; it is ended again, its ledger removed."""
    before = version(fleet, WORKING)
    began = time.perf_counter()
    agent = fleet.start_agent(WORKING)
    at: dict[str, float] = {}

    def has_reported() -> bool:
        return version(fleet, WORKING) != before

    checks: dict[str, Callable[[], bool]] = {"ready": partial(ready, agent), "reported": has_reported}
    while len(at) < len(checks):
        for name, check in checks.items():
            if name not in at and check():
                at[name] = time.perf_counter() - began
        assert time.perf_counter() - began < START_TAKES, f"no start within {START_TAKES:.0f} s: {agent.said[-2000:]}"
        time.sleep(0.01)
    assert agent.process is not None
    used = cpu(agent.process.pid)
    assert "lastPass" in fleet.cache(WORKING)["status"], "what the agent has written tells of no pass"
    agent.stop()
    shutil.rmtree(fleet.state(WORKING))
    return at["ready"], at["reported"], used


# --- passes --------------------------------------------------------------------------------------------------------


def passes(document: Document, fleet: Fleet, given: argparse.Namespace) -> None:
    """Let one agent work, and look at both now and then."""
    agents = {node: fleet.start_agent(node) for node in (WORKING, RESTING)}
    for node, agent in agents.items():
        eventually(partial(ready, agent), f"{node} is ready", START_TAKES)
    work = Passes(fleet, WORKING, agents[WORKING])
    pids = {node: pid_of(agent) for node, agent in agents.items()}
    every = max(1, given.passes // SAMPLES)
    moments: list[Moment] = []
    began, used = time.perf_counter(), {node: cpu(pid) for node, pid in pids.items()}
    for number in range(1, given.passes + 1):
        work.make()
        if number % every == 0:
            moments.append(Moment(number, held(pids[WORKING]), held(pids[RESTING])))
    took = time.perf_counter() - began
    spent = {node: cpu(pid) - used[node] for node, pid in pids.items()}
    assert work.look() >= given.passes, "passes were asked for that were not made"
    document.figures["passes"] = {
        "count": given.passes,
        "seconds": took,
        "cpu": spent,
        "moments": [dataclasses.asdict(moment) for moment in moments],
    }
    judge(document, moments, (spent[WORKING] - spent[RESTING]) / given.passes, given)


def pid_of(agent: Program) -> int:
    """The process of an agent that runs."""
    assert agent.process is not None
    return agent.process.pid


def judge(document: Document, moments: Sequence[Moment], each: float, given: argparse.Namespace) -> None:
    """What the samples come to: what is told of the warm-up is what came by it."""
    settled = moments[len(moments) // WARM_UP :]
    tenth = max(1, len(settled) // 10)
    drifts: dict[str, float] = {}
    for node in (WORKING, RESTING):
        values = [float(getattr(moment, node).resident_mib) for moment in settled]
        drifts[node] = statistics.median(values[-tenth:]) - statistics.median(values[:tenth])
    first = (moments[0].working.resident_mib, moments[0].resting.resident_mib)
    then = (settled[0].working.resident_mib, settled[0].resting.resident_mib)
    rows: list[tuple[str, ...]] = [
        ("resident, what came in the warm-up", *(f"{b - a:+.2f} MiB" for a, b in zip(first, then, strict=True))),
        both("resident", settled, lambda held: held.resident_mib, "MiB"),
        ("resident, last tenth less first", *(f"{drifts[node]:+.2f} MiB" for node in (WORKING, RESTING))),
        ("resident, slope for 1,000 passes", *(slopes(settled, node).shown("MiB") for node in (WORKING, RESTING))),
        both("descriptors", settled, lambda held: held.descriptors, ""),
        both("threads", settled, lambda held: held.threads, ""),
        ("processor for a pass, its request and report", f"{each * 1000:.0f} ms", ""),
    ]
    title = f"{given.passes} passes of an agent over {given.instances} instances, and an agent at rest"
    note = (
        "Passes are asked for by the annotation, each as soon as the one before has ended; a quarter of them is "
        "warm-up. The agent at rest makes the pass of its start."
    )
    document.tables.append(Table(title, ("", WORKING, RESTING), rows, (note,)))
    most = max(moment.working.resident_mib for moment in moments)
    descriptors = {moment.working.descriptors for moment in settled}
    document.targets += [
        Target(
            f"agent, {given.instances} instances: memory after {given.passes} passes",
            f"flat: within {DRIFT_MIB:g} MiB",
            f"{drifts[WORKING]:+.2f} MiB, at rest {drifts[RESTING]:+.2f} MiB",
            abs(drifts[WORKING]) <= DRIFT_MIB,
        ),
        Target(
            f"agent, {given.instances} instances: resident",
            f"< {MOST_MIB:g} MiB",
            f"{most:.1f} MiB at most",
            most < MOST_MIB,
        ),
        Target(
            "agent: descriptors",
            "flat",
            f"{min(descriptors)} to {max(descriptors)}",
            max(descriptors) - min(descriptors) <= FEW,
        ),
    ]


def slopes(moments: Sequence[Moment], node: str) -> Spread:
    """MiB that an agent grows by in 1,000 passes, as each of a few stretches of the run shows it."""
    size = max(2, len(moments) // STRETCHES)
    stretches = [moments[at : at + size] for at in range(0, len(moments) - size + 1, size)]
    return Spread.of(
        [
            fit([moment.passes for moment in part], [getattr(moment, node).resident_mib for moment in part]).each * 1000
            for part in stretches
        ]
    )


def both(what: str, moments: Sequence[Moment], of: Callable[[Held], float], unit: str) -> tuple[str, str, str]:
    """A row with one figure of both agents."""
    return (
        what,
        Spread.of([of(moment.working) for moment in moments]).shown(unit),
        Spread.of([of(moment.resting) for moment in moments]).shown(unit),
    )


def version(fleet: Fleet, node: str) -> str:
    """Which version of its object a node has; here only its agent writes it."""
    return str(fleet.cache(node)["metadata"]["resourceVersion"])


if __name__ == "__main__":
    main()
