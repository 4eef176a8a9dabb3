"""Inspect a cache: info, verify, dry run."""
