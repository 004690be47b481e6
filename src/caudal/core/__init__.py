"""The ground floor: errors, units, geometry, configuration, registries, events, seeds, messages.

Small stones that every other room stands on. Nothing here imports torch, rasterio or any room above.
"""
