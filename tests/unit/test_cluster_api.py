"""What counts as an answer of the API server, and what becomes of credentials that rotate; no cluster is needed."""

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from basekeeper.cluster.api import Api, ApiAway, ApiRefused, Conflict, NotFound, NotTheServer
from basekeeper.cluster.connection import Connection
from basekeeper.cluster.kinds import NODE_CACHES
from basekeeper.cluster.probes import Probes

OBJECT = {"kind": "NodeImageCache", "metadata": {"name": "node-a"}}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    status = 200
    body = b""
    accepted: str | None = None
    seen: list[str]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "")
        self.server.seen.append(given)
        refused = self.server.accepted is not None and given != self.server.accepted
        body = b"{}" if refused else self.server.body
        self.send_response(401 if refused else self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 (http.server's name)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Handler) as made:
        made.seen = []
        made.body = json.dumps(OBJECT).encode()
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    return tmp_path / "token"


@pytest.fixture
def connection(server: _Server, tmp_path: Path, token: Path) -> Connection:
    token.write_text("one\n")
    config = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {"tokenFile": str(token)}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(config))
    return Connection(file)


@pytest.fixture
def api(connection: Connection) -> Iterator[Api]:
    made = Api(connection, "test")
    yield made
    made._client.rest_client.pool_manager.clear()


def test_an_object_is_an_answer(api: Api) -> None:
    assert api.get(NODE_CACHES, "node-a") == OBJECT


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, ApiRefused),
        (404, NotFound),
        (409, Conflict),
        (429, ApiAway),
        (499, ApiRefused),
        (503, ApiAway),
        (599, ApiAway),
    ],
)
def test_each_status_is_one_of_a_few_errors(api: Api, server: _Server, status: int, error: type[Exception]) -> None:
    server.status, server.body = status, b'{"message": "no"}'
    with pytest.raises(error) as raised:
        api.get(NODE_CACHES, "node-a")
    assert type(raised.value) is error
    assert str(raised.value) == f"the API server answers {status}: no"


@pytest.mark.parametrize(
    "body",
    [b"<html>Log in</html>", b"{}", b"[]", b"", b'{"kind": "Status", "metadata": {}}', b'{"kind": "NodeImageCache"}'],
)
def test_what_somebody_else_answers_is_neither_obeyed_nor_taken_for_an_outage(
    api: Api, server: _Server, body: bytes
) -> None:
    server.body = body
    with pytest.raises(NotTheServer):
        api.get(NODE_CACHES, "node-a")
    with pytest.raises(NotTheServer):
        list(api.pages(NODE_CACHES))


def test_a_token_that_was_replaced_is_read_when_the_old_one_is_refused(api: Api, server: _Server, token: Path) -> None:
    assert api.get(NODE_CACHES, "node-a")
    token.write_text("two\n")
    server.accepted = "Bearer two"
    assert api.get(NODE_CACHES, "node-a")
    assert server.seen == ["Bearer one", "Bearer one", "Bearer two"]


def test_a_refused_token_that_nobody_replaced_is_not_sent_twice(api: Api, server: _Server) -> None:
    server.accepted = "Bearer two"
    with pytest.raises(ApiRefused, match="401"):
        api.get(NODE_CACHES, "node-a")
    assert server.seen == ["Bearer one"]


def test_a_token_is_read_anew_every_minute(
    api: Api, server: _Server, token: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    token.write_text("two\n")
    api.get(NODE_CACHES, "node-a")
    later = time.monotonic() + 61
    monkeypatch.setattr("basekeeper.cluster.connection.time.monotonic", lambda: later)
    api.get(NODE_CACHES, "node-a")
    assert server.seen == ["Bearer one", "Bearer two"]
    assert connection.login().as_http_headers() == {"Authorization": "Bearer two"}


def test_credentials_that_cannot_be_read_any_more_stay(api: Api, server: _Server, token: Path) -> None:
    token.unlink()
    server.accepted = "Bearer two"
    with pytest.raises(ApiRefused, match="401"):
        api.get(NODE_CACHES, "node-a")


@pytest.mark.parametrize(
    ("listen", "hosts"), [(":0", ("127.0.0.1", "[::1]")), ("127.0.0.1:0", ("127.0.0.1",)), ("[::1]:0", ("[::1]",))]
)
def test_probes_answer_in_both_families_unless_an_address_chooses_one(listen: str, hosts: tuple[str, ...]) -> None:
    probes = Probes(listen, lambda: None, lambda: "not yet", CollectorRegistry())
    probes.start()
    try:
        for host in hosts:
            with urllib.request.urlopen(f"http://{host}:{probes.port}/livez", timeout=5) as answer:
                assert answer.read() == b"ok\n"
    finally:
        probes.stop()
