"""Runs: one specification, its plan, and a folder on disk. The one place where names become objects."""
