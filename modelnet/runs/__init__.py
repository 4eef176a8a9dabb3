"""The run folder: its tables, checkpoints, provenance."""
