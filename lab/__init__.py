"""A laboratory: real compute nodes on one machine, for tests and for the demonstration.

`compute_node` starts libvirt daemons of its own, `domain_xml` writes what nova would tell them, `nova_tree`
lays out an instances directory with real qemu-img. Nothing here is part of the product, and nothing here knows
the product: a laboratory that shared its code with what it examines would share its errors too.
"""
