"""Figures of classes, labels and numbers, gathered piece by piece. Shared by tasks; knows none of them."""
