"""Messages that are altered on their way, on purpose or by a link: one bit, so that a checksum finds it or a tag."""

from __future__ import annotations

from dataclasses import replace

from testbed.actors.edge import Payload
from testbed.core.rng import Stream
from testbed.sim.request_table import Request


class Tampering:
    """Draws which messages up are altered, and the bit: keyed by the request's own seed and the step."""

    def __init__(self, seed: int, probability: float) -> None:
        self._probability = probability
        self._choices = Stream.named(seed, "tamper")
        self._bits = Stream.named(seed, "tamper.bit")

    def passed(self, payload: Payload, request: Request, step: int) -> Payload:
        """What arrives of a message where someone may have altered it."""
        if not self._probability or self._choices.uniform(request.sampling_seed, step) >= self._probability:
            return payload
        return self.altered(payload, request, step)

    def altered(self, payload: Payload, request: Request, step: int) -> Payload:
        """The message with one bit the other way round; a modelled one is only marked."""
        message = payload.message
        if message is not None:
            message = flipped(message, self._bits.below(8 * len(message), request.sampling_seed, step))
        return replace(payload, message=message, is_altered=True)


def flipped(message: bytes, bit: int) -> bytes:
    """The message with one bit the other way round."""
    altered = bytearray(message)
    altered[bit // 8] ^= 1 << bit % 8
    return bytes(altered)
