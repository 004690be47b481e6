"""The life of a byte: limits, meters, the ledger, the arena, and the plan that must hold.

Knows no task, model or file format. Host memory is counted as *charged bytes*: anonymous and shared
pages of the process tree, each once; clean page cache is not charged, the kernel takes it back.
"""
