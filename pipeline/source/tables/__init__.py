"""Tables of labels: their rows, one of their columns, and the images that the rows name."""
