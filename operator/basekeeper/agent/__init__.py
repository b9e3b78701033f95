"""`basekeeper agent`: the engine on one node, told what to do by that node's `NodeImageCache`, which it reports into.

`orders` knows what the node is told, `program` when to make a pass, `status` what to tell of it. What may go and what
stays is decided in `cache`, nowhere here.
"""
