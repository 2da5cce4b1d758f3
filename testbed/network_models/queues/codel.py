"""A queue that keeps its delay short, whatever its limit."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from testbed.network_models.ports.codel import CodelPort
from testbed.network_models.ports.packet import Port
from testbed.scenarios.base import PositiveTimeNs
from testbed.scenarios.pieces import QueueConfig


class Codel:
    """Controlled delay (RFC 8289): packets that waited too long for too long are dropped, ever more often."""

    class Config(QueueConfig):
        kind: Literal["codel"] = "codel"
        target: PositiveTimeNs = Field(default=5_000_000, validate_default=False)  # the longest wait that is no queue
        interval: PositiveTimeNs = Field(default=100_000_000, validate_default=False)  # about the worst round trip

        @property
        def needs_packets(self) -> str:
            return "its queue decides about a packet only when that is about to leave"

    port: ClassVar[type[Port]] = CodelPort
