"""Figures as PNG and SVG, drawn from plain numbers without torch."""
