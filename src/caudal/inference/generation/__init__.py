"""Making a picture: the prompt is encoded, noise is removed step by step, the result is decoded and marked.

The loop over steps is diffusers' own; what is here stands around it: caches, cancelling, weights that come
from disk while a step goes on, tiles of the decoder, watermark and provenance. Which parts there are and what
fits is decided above.
"""
