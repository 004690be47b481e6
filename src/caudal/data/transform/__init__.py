"""The user's own function between the stream and the loop: one sample in, one sample out.

It may be any Python. Where it holds Python's lock it runs in a process of its own, which sees the same
memory; where it does not, in threads. What it gives has to have one shape, which is learned beforehand, so
that memory for it can be granted.
"""
