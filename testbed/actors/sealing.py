"""What sealing messages takes of a processor, as a law; what it is really done with is testbed.codecs.seal.

    t = (bytes + SETUP_BYTES) / rate        rate: the profile's, of one core [our design]

SETUP_BYTES stands for a message's fixed cost, nonce, key schedule and tag: a 16-byte AES-GCM message takes as long as
141 bytes more of a long one on an RK3328 (openssl speed, jayanta525/openwrt-nanopi-r2s issue 2); assumed about twice
that. A processor seals on one core whatever else it does meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

from testbed.actors.calls import TOKEN_BYTES
from testbed.codecs.framing import SEAL_OVERHEAD_BYTES
from testbed.core.units import NS_PER_S
from testbed.scenarios.profiles import ProcessorProfile
from testbed.scenarios.schema import Scenario

SETUP_BYTES = 256


def seal_secret(scenario: Scenario) -> bytes:
    """What session keys are derived from; nothing where messages travel in the clear."""
    if scenario.seal == "none":
        return b""
    from testbed.codecs.seal import run_secret  # noqa: PLC0415 - loads OpenSSL, only where it is needed

    return run_secret(scenario.seed)


@dataclass(slots=True)
class Sealer:
    """One processor's sealing and opening of messages, and the time it has taken; the suite "none" takes none."""

    suite: str
    profile: ProcessorProfile
    secret: bytes = b""
    total_ns: int = 0

    @property
    def overhead_bytes(self) -> int:
        return 0 if self.suite == "none" else SEAL_OVERHEAD_BYTES

    @property
    def token_bytes(self) -> int:
        """A token's message."""
        return TOKEN_BYTES + self.overhead_bytes

    def time_ns(self, message_bytes: int) -> int:
        """Sealing, or opening, one message of so many bytes in the clear."""
        if self.suite == "none":
            return 0
        rate = self.profile.aes_gcm_rate if self.suite == "aes-gcm" else self.profile.chacha20_rate
        return -(-(message_bytes + SETUP_BYTES) * NS_PER_S // max(1, round(rate)))

    def sealed(self, token_ids: bytes, session: int, counter: int) -> bytes:
        """Token ids of a real session, really sealed; the messages of shards are sealed where these run."""
        if self.suite == "none":
            return token_ids
        from testbed.codecs.seal import Seal, session_key  # noqa: PLC0415 - loads OpenSSL, only where it is needed

        return Seal(self.suite, session_key(self.secret, session), session=session, split=0).seal(token_ids, counter)

    def spend(self, duration_ns: int) -> int:
        """Count this time as spent."""
        self.total_ns += duration_ns
        return duration_ns

    @property
    def energy_j(self) -> float:
        """Of the energy of computing, what the time spent took above idling."""
        return (self.profile.active_power - self.profile.idle_power) * self.total_ns / NS_PER_S
