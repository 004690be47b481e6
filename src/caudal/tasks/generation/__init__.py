"""Pictures of a person from a face, a prompt and a seed: what is asked for, and what a face is.

Knows no network and no file. Pictures are x_HWC, uint8, RGB; points are (x, y) in pixels.
"""
