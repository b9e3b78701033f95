"""What agent and controller share: the API server, a watch that heals, probes, logs.

Knows Kubernetes and nothing of caches: what an object means is `resources`' business, what is done about it is the
programs'.
"""
