"""The Zarr store, the manifest and what reads them."""
