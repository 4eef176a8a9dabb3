"""Evaluate, predict, export; scores, metrics, diagnostics."""
