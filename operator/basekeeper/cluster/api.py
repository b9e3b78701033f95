"""Requests to the API server, and its answers as values or as one of a few errors that callers tell apart.

Synchronous and safe to use from several threads: the programs work in threads of their own and leave the event loop
to the watches.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
from kubernetes import client

from .connection import Connection

_TIMEOUT = (5.0, 30.0)
"""Seconds to connect, and to wait for an answer."""
_AT_FIRST = (5.0, 10.0)
"""The same for an object that is asked for on a kept connection: one that a network forgot takes this long to show."""
_PAGE = 250
_METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
_MAX_MESSAGE = 500


class ApiError(Exception):
    """A request did not do what it should."""


class ApiAway(ApiError):
    """The server could not be asked: no connection, 429, 5xx. Says nothing about the object."""


class ApiRefused(ApiError):
    """The server answered, and the answer is no: any 4xx but 429 and those that have classes of their own."""


class NotTheServer(ApiRefused):
    """Somebody else answered, as whatever stands in between may: nothing to obey, and no reason to go on as before."""


class NotFound(ApiRefused):
    """There is no such object, or no such resource."""


class Conflict(ApiRefused):
    """The object is not, or not any more, what the request takes it for."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object, as paths name it."""

    group: str
    version: str
    plural: str
    kind: str
    namespace: str | None = None

    @property
    def api_version(self) -> str:
        """As manifests write it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, name: str | None = None, subresource: str | None = None) -> str:
        """The path of the collection, of an object or of a subresource of it."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        space = f"/namespaces/{quote(self.namespace)}" if self.namespace else ""
        parts = [part for part in (self.plural, name, subresource) if part]
        return f"{root}{space}/" + "/".join(quote(part) for part in parts)


Counted = Callable[[str, str], None]
"""Told each request's method and its answer's code; `error` when there was none."""


class Api:
    """The API server."""

    def __init__(self, connection: Connection, field_manager: str, counted: Counted = lambda _method, _code: None):
        self._connection = connection
        self._client = client.ApiClient(connection.configuration)
        self._client.user_agent = f"basekeeper/{field_manager}"
        self._manager = field_manager
        self._counted = counted

    def get(self, resource: Resource, name: str) -> dict[str, Any]:
        """One object, whole; asked for anew if a kept connection gives no answer. Raises ApiError."""
        path = resource.path(name)
        try:
            found = self._ask("GET", path, timeout=_AT_FIRST)
        except ApiAway as error:
            if not isinstance(error.__cause__, urllib3.exceptions.ReadTimeoutError):
                raise
            self._client.rest_client.pool_manager.clear()
            found = self._ask("GET", path)
        return _expected(found, resource.kind)

    def pages(self, resource: Resource, **selectors: str) -> Iterator[dict[str, Any]]:
        """All objects, a page at a time; `labelSelector` and `fieldSelector` choose. Raises ApiError."""
        going = ""
        while True:
            asked = {"limit": str(_PAGE), **selectors, **({"continue": going} if going else {})}
            page = _expected(self._ask("GET", f"{resource.path()}?{urlencode(asked)}"), f"{resource.kind}List")
            yield page
            going = page.get("metadata", {}).get("continue", "")
            if not going:
                return

    def serves(self, resource: Resource) -> bool:
        """Whether discovery lists this resource. Raises ApiError."""
        root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
        try:
            found = self._ask("GET", root)
        except NotFound:
            return False
        return any(item.get("name") == resource.plural for item in found.get("resources", ()))

    def apply(
        self,
        resource: Resource,
        name: str,
        content: Mapping[str, Any],
        *,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Make the object's fields of ours these, by server-side apply; answers its metadata. Raises ApiError.

        A dry run goes through everything that a real one does, and stores nothing.
        """
        metadata = {**content.get("metadata", {}), "name": name}
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **content, "metadata": metadata}
        dry = {"dryRun": "All"} if dry_run else {}
        query = urlencode({"fieldManager": self._manager, "force": "true", **dry})
        path = f"{resource.path(name, subresource)}?{query}"
        answer = self._ask("PATCH", path, body, "application/apply-patch+yaml", _METADATA_ONLY)
        return dict(answer.get("metadata", {}))

    def create(self, resource: Resource, content: Mapping[str, Any]) -> None:
        """Make an object. Raises ApiError."""
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **content}
        query = urlencode({"fieldManager": self._manager})
        self._ask("POST", f"{resource.path()}?{query}", body, "application/json", _METADATA_ONLY)

    def delete(self, resource: Resource, name: str, uid: str) -> None:
        """Delete this very object, not another of its name. Raises ApiError; that it is gone is no error."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        try:
            self._ask("DELETE", resource.path(name), body, "application/json")
        except NotFound:
            return

    def _ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str | None = None,
        accept: str = "application/json",
        timeout: tuple[float, float] = _TIMEOUT,
    ) -> dict[str, Any]:
        headers = {"Accept": accept} | ({"Content-Type": content_type} if content_type else {})
        status, raw, authorization = self._send(method, path, body, headers, timeout)
        if status == HTTPStatus.UNAUTHORIZED and self._connection.renew(authorization):
            status, raw, _ = self._send(method, path, body, headers, timeout)
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise _error(status, raw)
        try:
            answer = json.loads(raw) if raw else {}
        except ValueError as error:
            raise NotTheServer(f"something else than the API server answers: {_short(_text(raw))}") from error
        return answer if isinstance(answer, dict) else {}

    def _send(
        self, method: str, path: str, body: Any, headers: Mapping[str, str], timeout: tuple[float, float]
    ) -> tuple[int, bytes, str]:
        """Status and body of an answer, and the credentials that were used. Raises ApiAway."""
        request = self._client.param_serialize(
            method, path, header_params=dict(headers), body=body, auth_settings=["BearerToken"]
        )
        try:
            response = self._client.call_api(*request, _request_timeout=timeout)
            raw = response.read()  # type: ignore[no-untyped-call]
        except (urllib3.exceptions.HTTPError, client.ApiException, OSError) as error:
            self._counted(method, "error")
            raise ApiAway(f"the API server does not answer: {_short(str(error))}") from error
        self._counted(method, str(response.status))
        return response.status, raw, str(request[2].get("authorization", ""))


def _expected(answer: dict[str, Any], kind: str) -> dict[str, Any]:
    """An answer of this kind. Raises NotTheServer."""
    if answer.get("kind") != kind or not isinstance(answer.get("metadata"), dict):
        raise NotTheServer(f"something else than the API server answers: no {kind}, but {answer.get('kind')!r}")
    return answer


def _error(status: int, raw: bytes) -> ApiError:
    """The error for an answer that is no success."""
    try:
        said = str(json.loads(raw).get("message") or "")
    except (ValueError, AttributeError):
        said = _text(raw)
    message = f"the API server answers {status}: {_short(said)}"
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ApiAway(message)
    kinds: dict[int, type[ApiRefused]] = {HTTPStatus.NOT_FOUND: NotFound, HTTPStatus.CONFLICT: Conflict}
    return kinds.get(status, ApiRefused)(message)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_MESSAGE else line[: _MAX_MESSAGE - 1] + "…"
