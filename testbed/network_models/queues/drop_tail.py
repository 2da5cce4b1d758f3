"""First in, first out, with a byte limit."""

from __future__ import annotations

from typing import Literal

from testbed.scenarios.base import PositiveSizeBytes
from testbed.scenarios.pieces import QueueConfig


class DropTail:
    """A packet that doesn't fit when it comes is dropped; a smaller one behind it may fit."""

    class Config(QueueConfig):
        kind: Literal["drop-tail"] = "drop-tail"
        limit: PositiveSizeBytes  # waiting and in service, a direction
