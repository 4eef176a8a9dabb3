"""The bytes of a cache: header, tables, fingerprint, file names; readers. No torch."""
