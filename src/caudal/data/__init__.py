"""From files to batches: readers, index, split, order, stream, normalization, augmentation.

Knows nothing of models; what a mask means is told to it by whoever assembles the run.
"""
