"""Classes, labels or numbers for a sequence, or for each of its steps."""
