"""The kinds of object that the programs speak of."""

from basekeeper.resources import image_cache_policy, kinds, node_image_cache

from .api import Resource

POLICIES = Resource(kinds.GROUP, kinds.VERSION, kinds.POLICIES, image_cache_policy.KIND)
NODE_CACHES = Resource(kinds.GROUP, kinds.VERSION, kinds.NODES, node_image_cache.KIND)
NODES = Resource("", "v1", "nodes", "Node")


def pods(namespace: str) -> Resource:
    """The pods of one namespace."""
    return Resource("", "v1", "pods", "Pod", namespace)


EVENTS = Resource("", "v1", "events", "Event", "default")
"""Events about objects without a namespace lie in `default`, where `kubectl describe` looks for them."""
