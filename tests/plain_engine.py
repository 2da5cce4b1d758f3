"""The whole simulation once more, as plainly as it can be written: loops, a heap, one state per request, no SimPy.

It shares with the engine only the laws that have tests of their own (costs, memory, codec sizes) and the keyed draws.
Used as an oracle for modelled devices: what it says happens when must equal the engine's events to the nanosecond.
"""

from __future__ import annotations

import heapq
import itertools

from testbed.actors.costs import CostModel
from testbed.actors.memory import edge_demand, free_bytes, server_kv_bytes, server_weights_bytes
from testbed.codecs.named import make_codec
from testbed.core.rng import entity_key
from testbed.core.work import Work
from tests.plain_link import NORMAL, PlainLink

ARRIVAL, ADMISSION, ITERATION_END, FORMATION = range(NORMAL + 1, NORMAL + 5)
BITS = {"float32": 32, "bfloat16": 16, "float16": 16}


class PlainServer:
    def __init__(self, engine, number, group, splits):
        self.engine, self.number, self.group = engine, number, group
        self.costs = engine.costs(group.server)
        self.capacity = free_bytes(group.server) - server_weights_bytes(engine.shape, splits, engine.bits)
        self.waiting, self.reserved, self.resident = [], {}, {}
        self.outstanding = self.iterations = 0
        self.running = self.forming = False

    def ready(self, trip):
        self.waiting.append((self.engine.now, trip.request.request, trip))
        self.wake()

    def wake(self):
        if not self.running and not self.forming:
            self.forming = True
            self.engine.at(self.engine.now, FORMATION, self.form)

    def free(self, trip):
        self.reserved.pop(trip.request.request, None)
        self.resident.pop(trip.request.request, None)
        self.wake()

    def form(self):
        self.forming = False
        batch, prefill, held_back = [], 0, False
        for item in sorted(self.waiting, key=lambda item: item[:2]):
            trip = item[2]
            if len(batch) == self.group.max_batch:
                break
            if trip.tokens == 0:
                long = prefill > 0 and prefill + trip.new > self.group.max_prefill_tokens
                held_back = held_back or long or sum(self.reserved.values()) + trip.reserve > self.capacity
                if held_back:
                    continue
                self.reserved[trip.request.request] = trip.reserve
                prefill += trip.new
            batch.append(item)
        if batch:
            self.waiting = [item for item in self.waiting if item not in batch]
            self.run([item[2] for item in batch], prefill, len(self.waiting))

    def run(self, trips, prefill, num_waiting):
        self.running, start = True, self.engine.now
        coded = [trip for trip in trips if trip.split > 0]
        raw = sum(4 * trip.new * self.engine.shape.hidden_size for trip in coded)
        decode = self.costs.codec_ns(raw, sum(trip.message_bytes for trip in coded)) if coded else 0
        layers = self.engine.shape.num_layers
        works = [Work(start=t.split, stop=layers, new_tokens=t.new, past_tokens=t.past) for t in trips]
        back = self.costs.forward_ns(works)
        decoded = sum(trip.new for trip in trips) - prefill
        self.engine.at(
            start + decode + back,
            ITERATION_END,
            lambda: self.end(trips, start, decode, back, (prefill, decoded, num_waiting)),
        )

    def end(self, trips, start, decode, back, counts):
        self.running = False
        for trip in trips:
            self.resident[trip.request.request] = trip.past + trip.new
        kv = sum(self.resident.values())
        row = (self.engine.now, self.number, self.iterations, start, len(trips), *counts[:2], kv, counts[2])
        self.engine.iterations.append(row)
        self.iterations += 1
        for trip in trips:
            trip.served(start, decode, back)
        self.wake()


class Trip:
    """One request from its arrival on."""

    def __init__(self, engine, request):
        self.engine, self.request = engine, request
        self.cursor, self.pass_number, self.tokens, self.server = request.arrival_ns, 0, 0, None
        self.spans, self.token_times, self.transfers, self.outcome = [], [], [], None
        self.streamed, self.last_streamed = {}, (-1, 0, None)  # index -> delivered; the latest, first among equals

    @property
    def new(self):
        return self.request.num_prompt_tokens if self.tokens == 0 else 1

    @property
    def past(self):
        return 0 if self.tokens == 0 else self.request.num_prompt_tokens + self.tokens - 1

    @property
    def finished(self):
        return self.tokens == self.request.max_output_tokens

    def span(self, hop, end):
        if end > self.cursor:
            self.spans.append((self.pass_number, hop, self.cursor, end))
            self.cursor = end

    def admit(self):
        engine, request, shape = self.engine, self.request, self.engine.shape
        self.span("device_wait", engine.now)
        policy = engine.scenario.policy_of(engine.scenario.fleet[request.group])
        self.split = engine.split_of(policy)
        self.codec = make_codec(getattr(policy, "codec", "raw-float32"))
        total = request.num_prompt_tokens + request.max_output_tokens
        profile = engine.scenario.fleet[request.group].device
        self.costs = engine.costs(profile)
        if edge_demand(shape, self.split, total, engine.bits, engine.bits).total_bytes > free_bytes(profile):
            return self.end("oom", "device memory")
        if self.split == shape.num_layers:
            return self.compute(self.alone)
        self.reserve = server_kv_bytes(shape, self.split, total, engine.bits)
        able = [server for server in engine.servers if self.reserve <= server.capacity]
        if not able:
            return self.end("oom", "server memory")
        self.server = min(able, key=lambda server: (server.outstanding, server.number))
        self.server.outstanding += 1
        return self.step()

    def compute(self, then):
        work = Work(start=0, stop=self.split, new_tokens=self.new, past_tokens=self.past)
        self.engine.at(self.engine.now + self.costs.forward_ns([work]), NORMAL, then)

    def alone(self):
        self.span("front", self.engine.now)
        self.tokens += 1
        self.pass_number += 1
        self.token_times.append(self.engine.now)
        if self.finished:
            self.end("completed", "length")
        else:
            self.compute(self.alone)

    def step(self):
        if self.split == 0:
            self.send_up(4 * self.new)
        else:
            self.compute(self.encode)

    def encode(self):
        self.span("front", self.engine.now)
        size = self.codec.nbytes(self.new, self.engine.shape.hidden_size)
        encode_ns = self.costs.codec_ns(4 * self.new * self.engine.shape.hidden_size, size)

        def encoded():
            self.span("encode", self.engine.now)
            self.send_up(size)

        self.engine.at(self.engine.now + encode_ns, NORMAL, encoded)

    def send_up(self, size):
        self.message_bytes = size
        self.engine.links[self.request.device]["up"].send(size, self.up_done)

    def up_done(self, sent, pieces, account):
        self.transfers.append((self.engine.now, "up", sent, *account))
        self.follow(sent, pieces)
        if account[-1]:
            self.server.ready(self)
        else:
            self.end("link_timeout", "up-link timed out")

    def follow(self, sent, pieces):
        for hop, duration in pieces:
            sent += duration
            self.span(hop, sent)

    def served(self, start, decode, back):
        self.span("server_wait", start)
        self.span("decode", start + decode)
        self.span("back", start + decode + back)
        self.tokens += 1
        index = self.tokens - 1
        self.engine.links[self.request.device]["down"].send(4, lambda *how: self.down_done(index, *how))
        if self.finished:
            self.server.free(self)
        elif self.split == 0:
            self.pass_number += 1
            self.server.ready(self)

    def down_done(self, index, sent, pieces, account):
        self.transfers.append((self.engine.now, "down", sent, *account))
        if self.split == 0:
            return self.stream_done(index, sent, pieces, delivered=account[-1])
        self.follow(sent, pieces)
        if not account[-1]:
            return self.end("link_timeout", "down-link timed out")
        self.token_times.append(self.engine.now)
        if self.finished:
            return self.end("completed", "length")
        self.pass_number += 1
        return self.step()

    def stream_done(self, index, sent, pieces, *, delivered):
        self.streamed[index] = delivered
        self.last_streamed = max(self.last_streamed, (self.engine.now, -index, (sent, pieces)), key=lambda it: it[:2])
        while self.streamed.get(len(self.token_times)):
            self.token_times.append(self.engine.now)
        if len(self.streamed) == self.request.max_output_tokens:
            self.follow(*self.last_streamed[2])
            lost = not all(self.streamed.values())
            self.end(*(("link_timeout", "down-link timed out") if lost else ("completed", "length")))

    def end(self, outcome, reason):
        self.outcome = (self.engine.now, outcome, reason)
        if self.server is not None:
            self.server.outstanding -= 1
            self.server.free(self)
        self.engine.next_turn(self.request.device)
        self.engine.expect_follower(self.request.request)


class PlainEngine:
    """Runs at construction: `trips` in order of request, and `iterations` as they ended.

    `table` says which requests there are, and which come only when another has ended.
    """

    def __init__(self, scenario, shape, table):
        self.scenario, self.shape, self.bits, self.now = scenario, shape, BITS[scenario.dtype], 0
        self.heap, self.order, self.iterations, self.asking = [], itertools.count(), [], []
        members = [(group, place) for group in scenario.fleet for place in range(group.count)]
        self.links = [
            {way: PlainLink(self, group.link, way, entity_key(group.name, place)) for way in ("up", "down")}
            for group, place in members
        ]
        policies = [scenario.policy_of(group) for group in scenario.fleet]
        chosen = {self.split_of(policy) for policy in policies}
        racks = [group for group in scenario.servers for _ in range(group.count)]
        splits = chosen - {shape.num_layers}
        self.servers = [PlainServer(self, number, group, splits) for number, group in enumerate(racks)]
        self.turns = [[] for _ in members]
        self.table, self.trips = table, [None] * len(table)
        for request in table:
            if table.after[request.request] < 0:
                self.expect(request.request, request.arrival_ns)
        while self.heap:
            self.now, _, _, act = heapq.heappop(self.heap)
            act()

    def at(self, time, rank, act):
        heapq.heappush(self.heap, (time, rank, next(self.order), act))

    def split_of(self, policy):
        return {"cloud-only": 0, "edge-only": self.shape.num_layers}.get(policy.kind, getattr(policy, "split", None))

    def costs(self, profile):
        return CostModel(profile=profile, shape=self.shape, weight_bits=self.bits, kv_bits=self.bits)

    def expect(self, number, time):
        heapq.heappush(self.heap, (time, ARRIVAL, number, lambda: self.enter(number)))

    def expect_follower(self, ended):
        for number in range(ended + 1, len(self.table)):
            if self.table.after[number] == ended:
                self.expect(number, self.now + int(self.table.gap_ns[number]))

    def enter(self, number):
        self.trips[number] = Trip(self, self.table.arriving(number, self.now))
        self.arrive(self.trips[number])

    def arrive(self, trip):
        turns = self.turns[trip.request.device]
        turns.append(trip)
        if len(turns) == 1:
            self.ask(trip)

    def next_turn(self, device):
        self.turns[device].pop(0)
        if self.turns[device]:
            self.ask(self.turns[device][0])

    def ask(self, trip):
        if not self.asking:
            self.at(self.now, ADMISSION, self.admit_all)
        self.asking.append(trip)

    def admit_all(self):
        asking, self.asking = self.asking, []
        for trip in sorted(asking, key=lambda trip: trip.request.request):
            trip.admit()
