"""The loaders that Caudal's is measured beside: one file a peer, each a program of its own.

Nothing here imports Caudal: a peer runs in its own environment (`python -m benchmarks.peers.setup` makes
them). How a run is measured is in `benchmarks/loaders`.
"""
