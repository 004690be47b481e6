"""Classes, labels or numbers for a graph, or for each of its nodes."""
