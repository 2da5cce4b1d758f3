"""The basic link once more, packet by packet and round by round, for the plain engine."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from testbed.core.rng import Stream
from testbed.network_models.jitter import jitter_table

REPEAT, NORMAL = range(2)  # at one instant, repeats enter a queue before what is sent anew


class PlainLink:
    """Packet by packet, round by round."""

    def __init__(self, engine, profile, direction, entity):
        self.engine, self.profile, self.direction, self.entity = engine, profile, direction, entity
        self.rate = (profile.rate_up if direction == "up" else profile.rate_down).rate
        self.losses = Stream.named(engine.scenario.seed, f"link.{direction}.loss")
        self.jitters = Stream.named(engine.scenario.seed, f"link.{direction}.jitter")
        self.leaving, self.free_ns, self.num_packets, self.num_messages = [], 0, 0, 0

    def send(self, payload, done):
        room = self.profile.mtu - self.profile.header
        parts = [min(room, payload - start) for start in range(0, payload, room)] or [0]
        sizes = dict(enumerate((part + self.profile.header for part in parts), self.num_packets))
        message = {"number": self.num_messages, "sizes": sizes, "payload": payload, "sent": self.engine.now}
        message |= {"first": None, "wire": 0, "again": 0, "done": done}
        self.num_packets += len(parts)
        self.num_messages += 1
        self.round(message, list(sizes), 0)

    def round(self, message, wanted, attempt):
        now, missing, end = self.engine.now, [], self.engine.now
        start = max(now, self.free_ns)
        for packet in wanted:
            size = message["sizes"][packet]
            backlog = sum(other for left, other in self.leaving if left > now)
            if backlog + size > self.profile.queue.limit:
                missing.append(packet)
                continue
            end = self.free_ns = max(self.free_ns, now) + ceil(Fraction(size * 8 * 10**9, self.rate))
            self.leaving.append((end, size))
            message["wire"] += size
            if self.losses.u64(self.entity, (attempt << 40) + packet) >> 32 < round(self.profile.loss.p * 2**32):
                missing.append(packet)
        message["first"] = message["first"] or (min(start, end), end)
        message["again"] += len(wanted) if attempt else 0
        expiry = end + self.profile.transport.timeout
        if not missing:
            jitter = self.profile.jitter
            u32 = self.jitters.u64(self.entity, message["number"]) >> 32
            extra = 0 if jitter is None else jitter_table(jitter).value(u32)
            self.finish(message, end, self.profile.propagation_delay, extra, delivered=True)
        elif attempt < self.profile.transport.max_retransmissions:
            self.engine.at(expiry, REPEAT, lambda: self.round(message, missing, attempt + 1))
        else:
            self.finish(message, expiry, 0, 0, delivered=False)

    def finish(self, message, last_bit, propagate, jitter, *, delivered):
        start, first_end = message["first"]
        names = ("queue", "serialise", "retransmit", "propagate", "jitter")
        times = (start - message["sent"], first_end - start, last_bit - first_end, propagate, jitter)
        pieces = [(f"{self.direction}_{name}", time) for name, time in zip(names, times, strict=True)]
        account = (message["payload"], message["wire"], len(message["sizes"]), message["again"], delivered)
        self.engine.at(last_bit + propagate + jitter, NORMAL, lambda: message["done"](message["sent"], pieces, account))
