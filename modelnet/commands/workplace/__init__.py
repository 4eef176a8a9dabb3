"""Commands about a whole workplace: its experiments, runs and caches, and the machine."""
