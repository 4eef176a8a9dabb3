"""Measurements behind every figure that README quotes: `make bench SOURCE=FOLDER`."""
