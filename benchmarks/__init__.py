"""Claims of speed and memory, each measured beside what it is compared with, in one run.

`make bench` runs every row and writes `RESULTS.md`; `python -m benchmarks NAME…` runs some of them.
"""
