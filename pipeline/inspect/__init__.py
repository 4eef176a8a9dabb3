"""What a person asks of a cache: info, verify, dry run."""
