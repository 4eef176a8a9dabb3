"""Name the random changes of images, in the order in which they are done. No torch, because `--help` shows them."""

PIXEL_KINDS = ("rot90", "vflip", "rotate", "grey", "blur", "randaugment", "trivialaugment")  # by augment_pixels.py
KINDS = (*PIXEL_KINDS, "flip", "crop", "color", "erase")  # the others of whole batches, by augment.py
