"""Maps a raster of any size through a model, in memory that does not grow with the raster.

`tiles` says which windows are read and which pixels each completes, `feed` decodes them ahead of the model
(`spool` for files whose blocks are larger than tiles), `symmetry` averages over flips and turns, `blend`
joins overlapping scores, `encode` turns scores into pixel values, `mosaic` writes them as a Cloud-Optimized
GeoTIFF (`pyramid` makes its overviews), `predict` runs the whole. `forward` makes a function of a trained
model; it alone imports torch. Nothing here knows a model, a task or a file format by name.
"""
