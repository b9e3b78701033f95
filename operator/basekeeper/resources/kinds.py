"""Our two kinds as the API server's paths name them, and the words that people may put on objects."""

from .image_cache_policy import API_VERSION

GROUP, VERSION = API_VERSION.split("/")
POLICIES = "imagecachepolicies"
NODES = "nodeimagecaches"
RUN_NOW = f"{GROUP}/run-now"
"""An annotation that a person sets, or changes, to have a pass made soon. Nothing of ours ever writes an annotation."""
