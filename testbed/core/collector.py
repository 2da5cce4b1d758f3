"""Python's garbage collector while many small objects live for a short time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_ALLOCATIONS = 100_000  # more than died since the last round, before the next; Python's own choice is 700


@contextmanager
def rare_collections() -> Iterator[None]:
    """Within it the collector looks for cycles rarely: packets and events die by their counts.

    Its rounds visit everything that is under way, so their cost for a packet would grow with the number of links.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(_ALLOCATIONS, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
