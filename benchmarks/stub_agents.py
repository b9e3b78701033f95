"""Many agents in one process, for bench_cluster.py: what `basekeeper agent` says to the API server, and no passes.

Each node has its Node, an agent's pod and a token that is bound to it, and holds a watch of its own. It answers a new
generation within five seconds, as the real schedule spreads that, with a GET and a status; once it is told to, it
makes passes at the policy's interval and heartbeats, both from where a fleet that has run for hours would stand. The
statuses come from the agent's own `status.after_pass`, once for each way to be told; numbers and times are put into
copies of them. Unlike real agents, those of one process share its connections for requests that are not watches.

Reads commands, one JSON object a line, from standard input, and answers each with one line.
"""

import argparse
import asyncio
import copy
import heapq
import itertools
import json
import random
import resource
import ssl
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

from basekeeper.agent import status
from basekeeper.agent.orders import Order, read
from basekeeper.agent.reporting import HEARTBEAT
from basekeeper.cache.ledger import Accepted
from basekeeper.cache.moments import timestamp
from basekeeper.cache.names import Kind
from basekeeper.cache.nova_manager import Answer, NovaManager, Sign
from basekeeper.cache.report import Report, Row, Seconds
from basekeeper.cache.settings import Host, Policy
from basekeeper.cache.storage import Capacity
from basekeeper.cache.verdicts import Reason, Verdict
from basekeeper.cache.wholeness import State, Wholeness
from basekeeper.cluster.backoff import Backoff, jittered
from basekeeper.cluster.kinds import NODE_CACHES, NODES, pods

Object = dict[str, Any]
GIB = 1 << 30
KINDS_OF_NODE = 16
"""So many different caches, of 20 bases out of 60."""
BASES, IMAGES = 20, 60
DIGESTED = 0.5
"""The share of a node's bases of which a digest is told."""
AT_ONCE = 32
"""Requests of one process that are under way at the same time, watches apart."""
MANAGER = "basekeeper-agent"
LABELS = {"app.kubernetes.io/name": "basekeeper", "app.kubernetes.io/component": "agent"}
_APPLY = "application/apply-patch+yaml"
_METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
_TOLD_SPREAD = 5.0


class Stub:
    """One node."""

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        self.token = ""
        self.seen: int | None = None
        """The generation of which the watch told last."""
        self.told: Object = {}
        """The status that was last written."""
        self.pass_at = self.heartbeat_at = float("inf")
        self.silent = False

    @property
    def headers(self) -> dict[str, str]:
        """What every request of the agent bears."""
        return {"Authorization": f"Bearer {self.token}", "User-Agent": f"basekeeper/{MANAGER}"}


class Fleet:
    """The nodes of this process."""

    def __init__(self, given: argparse.Namespace, session: aiohttp.ClientSession) -> None:
        self._server: str = given.server
        self._admin: str = given.admin_token
        self._namespace: str = given.namespace
        self._session = session
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._stubs = [Stub(number, f"node-{number:05}") for number in range(given.first, given.first + given.count)]
        self._models: dict[tuple[str, int], Object] = {}
        self._counts: Counter[str] = Counter()
        self._open = 0
        self._all_open = asyncio.Event()
        self._interval = float("inf")
        self._due: list[tuple[float, int, Stub, str]] = []
        self._order = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()

    async def obey(self, command: Object) -> Object:
        """Do one thing, and say what came of it."""
        what = command["do"]
        if what == "make":
            await asyncio.gather(*(self._make(stub) for stub in self._stubs))
        elif what == "open":
            await self._open_watches()
        elif what == "steady":
            self._begin_passes(float(command["interval"]))
        elif what == "news":
            await asyncio.gather(*(self._pass(stub) for stub in self._stubs[: command["count"]]))
        elif what == "silence":
            at = time.time() - command["age"]
            await asyncio.gather(*(self._fall_silent(stub, at) for stub in self._stubs[: command["count"]]))
        return {**self._counts, "open": self._open}

    # --- the node ----------------------------------------------------------------------------------------------

    async def _make(self, stub: Stub) -> None:
        """Make what a kubelet, a DaemonSet and the kubelet again would."""
        pod, account = f"agent-{stub.name}", "basekeeper-agent"
        ready = {"conditions": [{"type": "Ready", "status": "True", "reason": "Laboratory", "message": ""}]}
        labels = {"kubernetes.io/hostname": stub.name}
        node = {"metadata": {"name": stub.name, "labels": labels}, "status": ready}
        await self._as_admin(NODES.path(), {"apiVersion": "v1", "kind": "Node", **node})
        spec = {
            "nodeName": stub.name,
            "serviceAccountName": account,
            "containers": [{"name": "main", "image": "none"}],
        }
        content = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "labels": LABELS}, "spec": spec}
        await self._as_admin(pods(self._namespace).path(), content)
        bound = {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod}, "expirationSeconds": 7200}
        ask = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": bound}
        answer = await self._as_admin(f"/api/v1/namespaces/{self._namespace}/serviceaccounts/{account}/token", ask)
        stub.token = answer["status"]["token"]

    async def _as_admin(self, path: str, body: Object) -> Object:
        headers = {"Authorization": f"Bearer {self._admin}"}
        async with self._turn, self._session.post(self._server + path, json=body, headers=headers) as answer:
            answer.raise_for_status()
            return dict(await answer.json())

    # --- the watch ---------------------------------------------------------------------------------------------

    async def _open_watches(self) -> None:
        for stub in self._stubs:
            self._spawn(self._watch(stub))
        await self._all_open.wait()

    async def _watch(self, stub: Stub) -> None:
        """List the own object, watch it, and begin anew with the real watch's waits whenever that ends."""
        backoff = Backoff(1.0, 30.0)
        query = {"fieldSelector": f"metadata.name={stub.name}"}
        while True:
            try:
                async with self._turn:
                    found = await self._request("GET", stub, NODE_CACHES.path(), "list", params=query)
                for item in found["items"]:
                    self._heard(stub, item)
                more = {"watch": "true", "resourceVersion": found["metadata"]["resourceVersion"]}
                await self._follow(stub, {**query, **more})
                backoff.reset()
            except (aiohttp.ClientError, OSError, ValueError) as error:
                self._counts[f"watch failed: {type(error).__name__}"] += 1
            await asyncio.sleep(backoff.failed())

    async def _follow(self, stub: Stub, query: dict[str, str]) -> None:
        where = self._server + NODE_CACHES.path()
        async with self._session.get(where, params=query, headers=stub.headers, timeout=None) as answer:
            answer.raise_for_status()
            self._open += 1
            if self._open == len(self._stubs):
                self._all_open.set()
            self._counts["watches opened"] += 1
            try:
                async for line in answer.content:
                    self._counts["watch bytes"] += len(line)
                    self._counts["watch events"] += 1
                    event = json.loads(line)
                    if event["type"] in ("ADDED", "MODIFIED"):
                        self._heard(stub, event["object"])
            finally:
                self._open -= 1

    def _heard(self, stub: Stub, found: Object) -> None:
        """Answer a new generation soon, but not at the same moment as every other node."""
        generation = found["metadata"]["generation"]
        if generation != stub.seen:
            stub.seen = generation
            self._spawn(self._soon(stub))

    async def _soon(self, stub: Stub) -> None:
        await asyncio.sleep(jittered(_TOLD_SPREAD / 2, 1.0))
        await self._pass(stub)

    # --- what an agent does ------------------------------------------------------------------------------------

    async def _pass(self, stub: Stub) -> None:
        """Read the own object, and tell what a pass under it found; every pass has news."""
        if stub.silent:
            return
        async with self._turn:
            found = await self._request("GET", stub, NODE_CACHES.path(stub.name), "get")
            if "spec" not in found:
                return
            self._counts["passes"] += 1
            told = self._status(stub, found, time.time())
            await self._write(stub, told)
        self._plan(stub, jittered(self._interval, 0.1))

    async def _beat(self, stub: Stub) -> None:
        if stub.silent or not stub.told:
            return
        self._counts["heartbeats"] += 1
        async with self._turn:
            await self._write(stub, status.beaten(stub.told, time.time()))
        self._plan_heartbeat(stub, jittered(HEARTBEAT * 0.9, 0.1))

    async def _fall_silent(self, stub: Stub, at: float) -> None:
        stub.silent = True
        async with self._turn:
            await self._write(stub, status.beaten(stub.told, at))

    async def _write(self, stub: Stub, told: Object) -> None:
        content = {"apiVersion": NODE_CACHES.api_version, "kind": NODE_CACHES.kind, "metadata": {"name": stub.name}}
        await self._request(
            "PATCH",
            stub,
            NODE_CACHES.path(stub.name, "status"),
            "patch",
            params={"fieldManager": MANAGER, "force": "true"},
            data=json.dumps({**content, "status": told}),
            headers={"Content-Type": _APPLY, "Accept": _METADATA_ONLY},
        )
        stub.told = told

    async def _request(
        self, method: str, stub: Stub, path: str, what: str, *, headers: dict[str, str] | None = None, **more: Any
    ) -> Object:
        borne = {**stub.headers, **(headers or {})}
        async with self._session.request(method, self._server + path, headers=borne, **more) as answer:
            self._counts[what] += 1
            self._counts[f"code {answer.status}"] += 1
            return dict(await answer.json()) if answer.ok else {}

    # --- time --------------------------------------------------------------------------------------------------

    def _begin_passes(self, interval: float) -> None:
        """Go on from where a fleet stands that has made passes at this interval for hours."""
        self._interval = interval
        for stub in self._stubs:
            wait = random.uniform(0.0, interval)  # noqa: S311
            self._plan(stub, wait)
            quiet = HEARTBEAT * 0.9 - (interval - wait)
            self._plan_heartbeat(stub, quiet if quiet > 0 else float("inf"))
        self._spawn(self._keep_time())

    def _plan(self, stub: Stub, wait: float) -> None:
        """Plan the next pass, and a heartbeat after what has just been written."""
        stub.pass_at = time.monotonic() + wait
        heapq.heappush(self._due, (stub.pass_at, next(self._order), stub, "pass"))
        self._plan_heartbeat(stub, jittered(HEARTBEAT * 0.9, 0.1))

    def _plan_heartbeat(self, stub: Stub, wait: float) -> None:
        stub.heartbeat_at = time.monotonic() + wait
        heapq.heappush(self._due, (stub.heartbeat_at, next(self._order), stub, "heartbeat"))

    async def _keep_time(self) -> None:
        while True:
            while self._due and self._due[0][0] <= time.monotonic():
                at, _, stub, what = heapq.heappop(self._due)
                if what == "pass" and at == stub.pass_at:
                    self._spawn(self._pass(stub))
                elif what == "heartbeat" and at == stub.heartbeat_at:
                    self._spawn(self._beat(stub))
            await asyncio.sleep(0.05)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._counts[f"failed: {type(error).__name__}"] += 1

    # --- what it says ------------------------------------------------------------------------------------------

    def _status(self, stub: Stub, found: Object, now: float) -> Object:
        spec, generation = found["spec"], found["metadata"]["generation"]
        key = json.dumps(spec, sort_keys=True), stub.number % KINDS_OF_NODE
        if key not in self._models:
            order = replace(read(Accepted(spec, generation, now), stub.name), found=found)
            self._models[key] = _model(order, stub, now)
        told = copy.deepcopy(self._models[key])
        told["observedGeneration"] = generation
        told["heartbeatTime"] = timestamp(now)
        for item in told["conditions"]:
            item["observedGeneration"] = generation
        if "lastPass" in told:
            told["lastPass"] |= {"time": timestamp(now), "seconds": round(random.uniform(0.02, 0.2), 3)}  # noqa: S311
            told["cache"]["bytes"] += random.randrange(GIB)  # noqa: S311 (each pass has news)
            told["fileSystem"] |= {"identity": f"fs-{stub.name}"}
        return told


def _model(order: Order, stub: Stub, now: float) -> Object:
    """What the real agent says of such a cache under such orders."""
    root = Path("/var/lib/nova/instances")
    host = Host(stub.name, root, root / "_base", root / "snapshots", Path("/state"))
    if order.policy is None:
        return status.without_pass(order, host, {}, now)
    capacity = Capacity("xfs", 4000 * GIB, 1900 * GIB, f"fs-{stub.name}")
    return status.after_pass(order, _report(order.policy, stub, now), host, capacity, {}, now)


def _report(policy: Policy, stub: Stub, now: float) -> Report:
    """A pass over twenty bases: most in use, some too young, two that go."""
    chosen = random.Random(stub.number % KINDS_OF_NODE).sample(range(IMAGES), BASES)  # noqa: S311
    rows = [_row(image, place, now) for place, image in enumerate(chosen)]
    digests = {_name(image): f"XXH3:{(image + 1) * GIB}:{image:032x}" for image in chosen[: int(BASES * DIGESTED)]}
    known = Wholeness({State.WHOLE: len(digests)}, len(digests), now - 86400.0, (), frozenset(), {}, digests)
    silent = Answer(None, Sign.NO_SIGN, "no base that a domain uses was touched since the last pass")
    return Report(
        "Pass",
        stub.name,
        now,
        policy,
        tuple(rows),
        seconds=Seconds(0.05, 0.01, 0.0),
        reclaimed_ever=123 * GIB,
        wholeness=known,
        nova=NovaManager(silent, silent),
    )


def _row(image: int, place: int, now: float) -> Row:
    verdict, reason = Verdict.KEEP, Reason.IN_USE_BY_OVERLAY
    more: Object = {}
    if place >= BASES - 2:
        verdict, reason = Verdict.REMOVE, Reason.EXPIRED
        more = {"unused_since": now - 2 * 86400.0, "removable_at": now - 86400.0}
    elif place >= BASES - 6:
        reason = Reason.TOO_YOUNG
        more = {"unused_since": now - 3600.0, "removable_at": now + 20 * 3600.0}
    return Row(
        name=_name(image),
        kind=Kind.ORIGINAL,
        verdict=verdict,
        reason=reason,
        message="in use",
        bytes=(image + 1) * GIB,
        **more,
    )


def _name(image: int) -> str:
    return f"{image * 2654435761 % (1 << 160):040x}"


async def main() -> None:
    """Obey until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("server", "ca", "namespace"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("first", "count"):
        parser.add_argument(f"--{name}", type=int, required=True)
    given = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    trust = ssl.create_default_context(cafile=given.ca)
    connector = aiohttp.TCPConnector(limit=0, ssl=trust)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    given.admin_token = (await lines.readline()).decode().strip()
    async with aiohttp.ClientSession(connector=connector, read_bufsize=1 << 17) as session:
        fleet = Fleet(given, session)
        while line := await lines.readline():
            print(json.dumps(await fleet.obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
