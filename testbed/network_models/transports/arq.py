"""What transports that repeat after a time-out have in common (ARQ, automatic repeat request)."""

from __future__ import annotations

from pydantic import Field

from testbed.scenarios.base import PositiveTimeNs
from testbed.scenarios.pieces import TransportConfig


class ArqConfig(TransportConfig):
    """When and how often what is missing is sent again."""

    timeout: PositiveTimeNs = Field(default=200_000_000, validate_default=False)
    max_retransmissions: int = Field(default=10, ge=0, le=1000)  # of a packet
    patience: PositiveTimeNs | None = None  # of a message, from its sending
