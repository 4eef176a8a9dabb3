"""Groups of options that commands share, and the values that follow from them."""
