"""The service: jobs that somebody else started, on one machine or on many, and that never end unnamed.

Nothing below this room knows it, and `import caudal` does not load it. It runs the verbs of `caudal.cli` in
processes of their own and imports none of them.
"""
