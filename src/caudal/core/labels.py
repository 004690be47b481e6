"""Numbers that stand for a class, agreed upon by everyone who holds a mask."""

IGNORE = 255
"""The class number of pixels that are not learned from and not scored."""
