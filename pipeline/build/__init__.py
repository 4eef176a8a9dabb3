"""A manifest -> a published cache file: assess, fill, journal, publish."""
