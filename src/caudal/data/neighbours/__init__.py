"""One graph larger than memory: neighbours of every node in mapped files, and draws of some of them.

A folder holds `ends.npy` (nodes,), `neighbours.npy` (edges,), `x.npy` (nodes, features) and `nodes.npz` with
the nodes that something is known of. `build` writes it from a list of edges. Nothing is learned here.
"""
