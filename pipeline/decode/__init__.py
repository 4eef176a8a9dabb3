"""Bytes of an image -> (H, W, 3) uint8 pixels: codecs, resizing, perceptual hash."""
