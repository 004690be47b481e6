"""Figures of quality, shared by tasks that score whole samples. Knows no task, and needs numpy alone."""
