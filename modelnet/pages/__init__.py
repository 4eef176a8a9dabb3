"""The report, and pages that show caches, batches and networks; each one HTML file."""
