"""Requests to the API server with anybody's token, and its answers as values: refusals are what tests look at."""

import http.client
import json
import ssl
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from lab.control_plane import ANSWER_TIMEOUT, ControlPlane

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
Object = dict[str, Any]


class Answer(NamedTuple):
    """What the server says."""

    status: int
    body: Object
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether it did what it was asked."""
        return self.status < http.client.MULTIPLE_CHOICES

    @property
    def message(self) -> str:
        """The sentence of a refusal, in one line."""
        return " ".join(str(self.body.get("message", "")).split())


def ask(
    cluster: ControlPlane,
    method: str,
    path: str,
    body: Object | None = None,
    *,
    token: str | None = None,
    content_type: str = "application/json",
) -> Answer:
    """Ask as whoever has the token, the administrator by default."""
    address = urlsplit(cluster.url)
    assert address.hostname is not None
    trust = ssl.create_default_context(cafile=str(cluster.ca_file))
    connection = http.client.HTTPSConnection(address.hostname, address.port, context=trust, timeout=ANSWER_TIMEOUT)
    if token is None:
        token = json.loads(cluster.admin.read_text())["users"][0]["user"]["token"]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": content_type}
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        said = answer.read().decode()
    finally:
        connection.close()
    try:
        found = json.loads(said)
    except ValueError:
        found = {"message": said}
    return Answer(answer.status, found, tuple(answer.headers.get_all("Warning") or ()))
