"""The loader benchmarks: the work, the harness that runs peers and Caudal in turns, and the rows.

The peers' side, which knows nothing of Caudal, is in `benchmarks/peers`.
"""
