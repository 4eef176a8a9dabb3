"""The colors of all pictures and pages, so that a group looks the same in a PNG and on a page, by day and by night."""

COLORS = ("#1f77b4", "#c2410c", "#15803d", "#9333ea", "#be185d", "#a16207", "#64748b", "#0e9f9f")  # on light and dark
FULL = "#0b4f9c"  # a cell of a confusion matrix that holds all of its row; an empty one is white
BAR = "#6b9bd1"
GREY = "#94a3b8"  # groups without a color of their own, the line of guessing


def color_of(number: int) -> str:
    """Return the color of group, class or line `number`; they repeat."""
    return COLORS[number % len(COLORS)]
