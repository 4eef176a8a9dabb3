"""The kinds of sources, a file each; `scan` tries them in order."""
