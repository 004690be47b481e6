"""The report of a run: what the folder says, drawn as one page of HTML that needs nothing else."""
