"""Servers once more, as plainly as they can be written: a list of sequences, sorted anew for every share.

Token by token, no SimPy, no arrays, nothing of the schedulers' code: it takes from the engine only how long a batch
takes (`iteration_ns`). Sequences are of whole models: their next step is ready when the last one ends.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from types import SimpleNamespace


@dataclass(eq=False)
class Sequence:
    number: int
    ready: int  # of the pass that waits
    prompt: int
    output: int
    device: int = 0
    arrival: int = 0
    made: int = 0  # tokens given
    kv: int = 0
    layers: int = 1
    resident: bool = False
    preempted: bool = False
    partial: bool = False
    admitted: int = 0
    since: int = 0  # what a deadline counts from
    swapped: int = 0  # blocks in host memory
    token_times: list = field(default_factory=list)

    @property
    def left(self):
        return self.prompt + self.made - self.kv


RULES = SimpleNamespace(
    max_batch=32, max_prefill_tokens=2048, chunk_tokens=None, priority="arrival", max_resident=None,
    order="fifo", ttft=0, tpot=0, blocks=None, block_tokens=16, swap=False,
)  # fmt: skip


class PlainServer:
    """`kv_capacity` is in tokens of the whole model at `blocks=None`, else there are so many blocks of one layer."""

    def __init__(self, rules, *, kv_capacity, iteration_ns):
        self.rules, self.kv_capacity, self.iteration_ns = rules, kv_capacity, iteration_ns
        self.inside, self.served, self.admissions = [], {}, itertools.count()
        self.now, self.busy_until, self.swapped_blocks = 0, None, 0
        self.iterations, self.preemptions, self.batch = [], [], []

    def blocks_of(self, sequence, tokens):
        return sequence.layers * -(-tokens // self.rules.block_tokens)

    def free(self):
        if self.rules.blocks is None:
            return self.kv_capacity - sum(item.prompt + item.output for item in self.inside if item.resident)
        return self.rules.blocks - sum(self.blocks_of(item, item.kv) for item in self.inside if item.resident)

    def needs(self, sequence, end):
        if self.rules.blocks is None:
            return 0 if sequence.resident else sequence.prompt + sequence.output
        return self.blocks_of(sequence, end) - (self.blocks_of(sequence, sequence.kv) if sequence.resident else 0)

    def key(self, sequence):
        if self.rules.order == "shortest-prompt":
            first = sequence.length
        elif self.rules.order == "shortest-output":
            first = sequence.output
        elif self.rules.order == "deadline":
            first = sequence.since + (self.rules.tpot if sequence.made else self.rules.ttft)
        elif self.rules.order == "fair":
            first = self.order_of[sequence.device]
        else:
            first = 0
        return (first, sequence.ready, sequence.number)

    def arrive(self, sequence):
        sequence.length = sequence.left
        sequence.ready_at = sequence.ready
        sequence.since = sequence.arrival
        self.inside.append(sequence)

    def form(self):
        """The next batch: (sequence, tokens)."""
        self.order_of = {item.device: self.served.get(item.device, 0) for item in self.inside}
        while True:
            known = len(self.preemptions)
            batch = self.walk()
            if batch or len(self.preemptions) == known:
                break
        for item, tokens in batch:
            self.served[item.device] = self.served.get(item.device, 0) + tokens
        return batch

    def walk(self):
        self.batch, self.held = [], False
        self.aside = min(len(self.steps()), self.rules.max_batch)
        while len(self.batch) < self.rules.max_batch:
            prefill, step = self.next_prefill(), self.next_step()
            if prefill and step and self.goes_first(step, prefill):
                prefill = None
            if prefill:
                self.try_prefill(prefill)
            elif step:
                self.try_step(step)
            else:
                break
        return self.batch

    def steps(self):
        found = [item for item in self.inside if item.resident and item.made and not item.partial]
        return sorted((item for item in found if item not in self.seated()), key=self.key)

    def seated(self):
        return [item for item, _ in self.batch]

    def taken_as(self, kind):
        return [tokens for item, tokens in self.batch if item.taken_as == kind]

    def next_step(self):
        left = self.rules.max_batch
        if self.rules.chunk_tokens is not None:
            left = self.rules.chunk_tokens - sum(self.taken_as("step"))
            left -= sum(self.taken_as("prefill")) if self.rules.priority == "prefill" else 0
        steps = self.steps()
        return steps[0] if steps and left > 0 else None

    def next_prefill(self):
        waiting = [item for item in self.inside if (not item.resident or item.partial) and item not in self.seated()]
        waiting.sort(key=lambda item: (not item.partial, not item.preempted, self.key(item)))
        return waiting[0] if waiting and not self.held and self.allowance(waiting[0]) > 0 else None

    def allowance(self, item):
        rules, taken = self.rules, self.taken_as("prefill")
        if rules.chunk_tokens is None:
            return item.left if not taken or sum(taken) + item.left <= rules.max_prefill_tokens else 0
        whole = rules.chunk_tokens - (0 if rules.priority == "prefill" else self.aside)
        return min(item.left, min(rules.max_prefill_tokens, whole) - sum(taken))

    def goes_first(self, step, prefill):
        if self.rules.priority == "arrival":
            return self.key(step) < self.key(prefill)
        return self.rules.priority == "decode"

    def try_prefill(self, item):
        tokens = self.allowance(item)
        full = self.rules.max_resident is not None and not item.resident
        full = full and sum(other.resident for other in self.inside) >= self.rules.max_resident
        self.held = full or self.needs(item, item.kv + tokens) > self.free()
        if not self.held:
            self.take(item, tokens, "prefill")
            self.held = item.partial

    def try_step(self, item):
        while item.resident and self.needs(item, item.kv + 1) > self.free():
            candidates = [other for other in self.inside if other.resident and other not in self.seated()]
            self.preempt(max(candidates, key=lambda other: other.admitted))
            self.held = True
        if item.resident:
            self.take(item, 1, "step")

    def take(self, item, tokens, taken_as):
        if not item.resident:
            item.resident, item.admitted = True, next(self.admissions)
            self.swapped_blocks += item.swapped
            item.swapped = 0
        item.taken_as = taken_as
        item.partial = tokens < item.left
        self.batch.append((item, tokens))
        item.kv += tokens

    def preempt(self, item):
        self.preemptions.append((self.now, item.number, item.kv))
        item.resident, item.partial, item.preempted = False, False, True
        if self.rules.swap:
            item.swapped = self.blocks_of(item, item.kv)
            self.swapped_blocks += item.swapped
        else:
            item.kv = 0

    def start(self):
        batch = self.form()
        if not batch:
            return
        swapped, self.swapped_blocks = self.swapped_blocks, 0
        works = [(tokens, item.kv - tokens, not item.partial) for item, tokens in batch]
        self.began, self.busy_until = self.now, self.now + self.iteration_ns(works, swapped)

    def end(self):
        self.now, batch, self.batch = self.busy_until, self.batch, []
        self.busy_until, left = None, []
        kv = sum(item.kv for item in self.inside if item.resident)
        self.iterations.append((self.began, self.now, len(batch), sum(tokens for _, tokens in batch), kv))
        for item, _ in batch:
            if item.partial:
                continue
            item.made += 1
            item.preempted = False
            item.token_times.append(self.now)
            item.ready = item.since = self.now
            item.length = 1
            if item.made == item.output:
                item.resident = False
                self.inside.remove(item)
                left.append(item)
        return left


def run(servers, sequences):
    """Arrivals in order of (ready, number), each to the server with the fewest inside; ends come before batches."""
    waiting = sorted(sequences, key=lambda item: (item.ready, item.number))
    while waiting or any(server.busy_until is not None for server in servers):
        ends = [server.busy_until for server in servers if server.busy_until is not None]
        now = min(ends + ([waiting[0].ready] if waiting else []))
        while waiting and waiting[0].ready == now:
            item = waiting.pop(0)
            min(servers, key=lambda server: len(server.inside)).arrive(item)
        for server in servers:
            if server.busy_until == now:
                server.end()
        for server in servers:
            server.now = now
            if server.busy_until is None:
                server.start()
