"""The same build in several files, by an executor or a Dask cluster."""
