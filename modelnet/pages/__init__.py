"""The report's page and its tables."""
