"""The custom resource definitions, made from the models: nothing is written twice.

A model's JSON schema becomes the structural schema that Kubernetes asks for (KEP-1693): references are put in
place, titles and everything else that it does not allow goes. `scripts/generate` writes the result to
`deploy/crds/`, and a test keeps both equal.

Unknown fields of a policy are kept, not pruned: a pruned `nodeSelectr` would select every node and a pruned
`pinnedImage` would pin nothing. So is a `null`, as an empty variable of a template leaves it: pruned, a label with no
value would make a selector wider. The admission policy of `admission` refuses both by name, and where that is not
installed the controller does not accept the policy.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from . import image_cache_policy, node_image_cache
from .image_cache_policy import API_VERSION, ImageCachePolicy, PolicySpec, PolicyStatus
from .kinds import GROUP, NODES, POLICIES, VERSION
from .node_image_cache import NodeSpec, NodeStatus

_KEPT = (
    *("type", "description", "format", "pattern", "enum", "default", "required"),
    *("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties"),
    *("x-kubernetes-int-or-string", "x-kubernetes-validations"),
)
"""What a structural schema may say and ours do. `propertyNames`, which it may not say, is left to the models."""

_POSITIVE = {
    "rule": "isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('1')) >= 0"
    " && quantity(string(self)).isLessThan(quantity('8Ei'))",
    "message": "expected a size above 0 and below 8Ei such as 10Gi",
}


def policies() -> dict[str, Any]:
    """The definition of `ImageCachePolicy`."""
    spec = _structural(PolicySpec, by_people=True)
    return _definition(
        kind=image_cache_policy.KIND,
        plural=POLICIES,
        short="icp",
        description=_text(ImageCachePolicy.__doc__),
        spec=spec,
        status=_structural(PolicyStatus),
        columns=(
            _column("Mode", ".spec.mode", "Audit decides and reports, Enforce removes."),
            _column("Nodes", ".status.nodes.matched", "Nodes that follow the policy.", "integer"),
            _column("Current", ".status.nodes.current", "Nodes that run this generation.", "integer"),
            _column("Ready", _condition("Ready"), "Whether enough nodes run this generation."),
            _column("Reclaimable", ".status.reclaimable", "What may go now; in Audit: what Enforce would free."),
            _column("Holding", ".status.nodes.holding", "Nodes on which something is held.", "integer"),
            _column("Failing", ".status.nodes.failing", "Nodes that fail or have an open breaker.", "integer"),
            _column("Rolling out", _condition("RollingOut"), "Whether nodes wait for a wave.", priority=1),
            _column("Stale", ".status.nodes.stale", "Nodes that fell silent.", "integer", priority=1),
            _column("Missing", ".status.nodes.missing", "Nodes that never reported.", "integer", priority=1),
            _column("Overridden", ".status.nodes.overridden", "Nodes that follow another policy.", "integer", 1),
            _column("Suspended", ".spec.suspend", "Whether removals are stopped.", "boolean", priority=1),
            _column("Age", ".metadata.creationTimestamp", "Since it was made.", "date"),
        ),
        selectable=(".spec.mode",),
        required=("spec",),
    )


def nodes() -> dict[str, Any]:
    """The definition of `NodeImageCache`."""
    return _definition(
        kind=node_image_cache.KIND,
        plural=NODES,
        short="nic",
        description="What one node is told about its cache of base images, and what it tells. Made by basekeeper.",
        # Owned as a whole: of a spec that loses its last field the server would otherwise make null, and refuse it.
        spec={**_structural(NodeSpec), "x-kubernetes-map-type": "atomic"},
        status=_structural(NodeStatus),
        columns=(
            _column("Policy", ".spec.policy.name", "The policy that the node follows."),
            _column("Mode", ".spec.mode", "Audit decides and reports, Enforce removes."),
            _column("Outcome", ".status.lastPass.outcome", "How the last pass ended."),
            _column("Reclaimable", ".status.reclaimable", "What may go now; in Audit: what Enforce would free."),
            _column("Holding", _condition("Holding", "reason"), "What holds removals, if anything does."),
            _column("Last pass", ".status.lastPass.time", "When the last pass was that changed something.", "date"),
            _column("Files", ".status.cache.files", "Files in the cache.", "integer", priority=1),
            _column("Quarantined", ".status.cache.quarantinedFiles", "Files in quarantine.", "integer", priority=1),
            _column("Breaker", _condition("BreakerClosed", "reason"), "What stops every removal.", priority=1),
            _column(
                "Pressure", ".status.pressure.state", "How disk and cache stand to the policy's marks.", priority=1
            ),
            _column("Window", ".status.window.open", "Whether a maintenance window is open.", "boolean", 1),
            _column("Heartbeat", ".status.heartbeatTime", "When the agent last wrote.", "date", priority=1),
            _column("Age", ".metadata.creationTimestamp", "Since it was made.", "date"),
        ),
        selectable=(".spec.policy.name", ".spec.mode"),
    )


def _definition(
    *,
    kind: str,
    plural: str,
    short: str,
    description: str,
    spec: dict[str, Any],
    status: dict[str, Any],
    columns: tuple[dict[str, Any], ...],
    selectable: tuple[str, ...],
    required: tuple[str, ...] = (),
) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "description": description,
        "type": "object",
        **({"required": list(required)} if required else {}),
        "properties": {
            "apiVersion": {"type": "string", "description": f"{API_VERSION}."},
            "kind": {"type": "string", "description": f"{kind}."},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}", "labels": {"app.kubernetes.io/name": "basekeeper"}},
        "spec": {
            "group": GROUP,
            "scope": "Cluster",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
                "categories": ["basekeeper"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                    "selectableFields": [{"jsonPath": path} for path in selectable],
                    "additionalPrinterColumns": list(columns),
                }
            ],
        },
    }


def _column(name: str, path: str, description: str, kind: str = "string", priority: int = 0) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return column | ({"priority": priority} if priority else {})


def _condition(kind: str, what: str = "status") -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{what}'


def _structural(model: type[BaseModel], *, by_people: bool = False) -> dict[str, Any]:
    """The structural schema of a model.

    Defaults, rules and unknown fields are for what people write. What a program of ours writes has one writer, so
    that its mappings are owned as a whole: the server keeps a list of owners of every field otherwise.
    """
    schema = model.model_json_schema(by_alias=True)
    structure = _Structure(schema.get("$defs", {}), by_people)
    made = structure.of(schema)
    made.pop("x-kubernetes-map-type", None)  # spec and status themselves are merged: that is how ownership is told
    return made


class _Structure:
    """Turns one JSON schema into a structural one."""

    def __init__(self, shared: Mapping[str, Any], by_people: bool) -> None:
        self._shared = shared
        self._by_people = by_people
        dropped = () if by_people else ("default", "x-kubernetes-validations")
        self._kept = [name for name in _KEPT if name not in dropped]

    def of(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """The structural form of `schema`."""
        if "$ref" in schema:
            target = self._shared[schema["$ref"].rpartition("/")[2]]
            return self.of({**target, **{key: value for key, value in schema.items() if key != "$ref"}})
        made = {name: schema[name] for name in self._kept if name in schema}
        if "const" in schema:
            made["enum"] = [schema["const"]]
        if "description" in made:
            made["description"] = _text(made["description"])
        if schema.get("x-kubernetes-int-or-string"):
            return self._int_or_string(made)
        if schema.get("type") == "array":
            return self._list(schema, made)
        if schema.get("type") == "object":
            return self._object(schema, made)
        return made

    def _int_or_string(self, made: dict[str, Any]) -> dict[str, Any]:
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
        if self._by_people and "x-kubernetes-validations" not in made:
            made["x-kubernetes-validations"] = [_POSITIVE]
        return made

    def _list(self, schema: Mapping[str, Any], made: dict[str, Any]) -> dict[str, Any]:
        made["items"] = self.of(schema["items"])
        keyed = {"type", "lastTransitionTime"} <= made["items"].get("properties", {}).keys()
        made["x-kubernetes-list-type"] = "map" if keyed else "atomic"
        if keyed:
            made["x-kubernetes-list-map-keys"] = ["type"]
        return made

    def _object(self, schema: Mapping[str, Any], made: dict[str, Any]) -> dict[str, Any]:
        if "properties" not in schema:
            # Keys with a pattern come as `patternProperties`, which a structural schema cannot say.
            (values,) = schema.get("patternProperties", {"": schema.get("additionalProperties")}).values()
            made["additionalProperties"] = self._given(self.of(values))
            made.pop("default", None)
            return self._owned(made)
        required = schema.get("required", ())
        made["properties"] = {
            name: self.of(field) if name in required else self._given(self.of(field))
            for name, field in schema["properties"].items()
        }
        if "default" in made:
            made["default"] = {}  # the server fills in what the fields' own defaults say
        if self._by_people:
            made["x-kubernetes-preserve-unknown-fields"] = True
        return self._owned(made)

    def _given(self, made: dict[str, Any]) -> dict[str, Any]:
        """What people may leave out: its `null` is kept, to be refused."""
        return {**made, "nullable": True} if self._by_people else made

    def _owned(self, made: dict[str, Any]) -> dict[str, Any]:
        return made if self._by_people else {**made, "x-kubernetes-map-type": "atomic"}


def _text(docstring: str | None) -> str:
    """A docstring as one paragraph."""
    return " ".join((docstring or "").split())
