"""First in, first out, with a byte limit."""

from __future__ import annotations

from typing import ClassVar, Literal

from testbed.network_models.ports.fifo import FifoPort
from testbed.network_models.ports.packet import Port
from testbed.scenarios.pieces import QueueConfig


class DropTail:
    """A packet that doesn't fit when it comes is dropped; a smaller one behind it may fit."""

    class Config(QueueConfig):
        kind: Literal["drop-tail"] = "drop-tail"

    port: ClassVar[type[Port]] = FifoPort
