"""What can be done with a run: one file a verb. Functions, for the terminal and for Python alike."""
