"""Is one side better? Statistics, result, sentence."""
