"""`basekeeper controller`: tells every node what to do, and every policy what became of it.

`snapshots` are what is known of the cluster, kept in `store`. `matching`, `caution`, `rollout` and `rollup` turn them
into what should be; they are pure. `program` watches, and writes the difference. No file system, no engine.
"""
