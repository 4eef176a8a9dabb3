"""Work on a batch by as many threads as PyTorch has, where it releases the interpreter and is worth a thread."""

from collections.abc import Callable
from itertools import pairwise
from threading import Thread

import torch

IMAGES_A_THREAD = 16  # fewer are done before another thread has begun


def in_parts(work: Callable[[int, int], None], images: int) -> None:
    """Call `work(start, end)` for parts of 0..images, in threads that end with this call: none outlives a fork.

    `work` must not raise.
    """
    threads = max(1, min(torch.get_num_threads(), images // IMAGES_A_THREAD))
    first, *rest = pairwise(images * part // threads for part in range(threads + 1))
    others = [Thread(target=work, args=part) for part in rest]
    for other in others:
        other.start()
    work(*first)
    for other in others:
        other.join()
