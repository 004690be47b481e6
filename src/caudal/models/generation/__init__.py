"""The networks of identity-conditioned SDXL, built from stock diffusers parts, and the faces' own.

Nothing is downloaded: every part is a folder or a file that the user has. diffusers, transformers and
accelerate are optional and are imported when a part is built; see `libraries`.
"""
