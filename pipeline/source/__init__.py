"""A folder, an archive or a table -> a manifest: each image, its class, where its bytes lie."""
