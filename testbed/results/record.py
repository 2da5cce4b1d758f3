"""From typed events to the tables of a run folder, while the run goes on."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from testbed.core.cast import Cast, RunEnd
from testbed.core.events import (
    HOPS,
    CodecChanged,
    Event,
    EventDigest,
    IterationEnded,
    PrefixFound,
    RequestAdmitted,
    RequestArrived,
    RequestEnded,
    RequestRequeued,
    SequencePreempted,
    SequenceResumed,
    ServerChanged,
    ServersScaled,
    SpanEnded,
    TokenDelivered,
    TransferEnded,
)
from testbed.core.request_row import ADMITTED_NS, CODEC, CURRENT_CODEC, SERVER, SPLIT, UNKNOWN
from testbed.results import files
from testbed.results.cluster import ClusterRecorder
from testbed.results.rows import RequestRows
from testbed.results.stream import TableStream, write_table
from testbed.results.tables import (
    Answers,
    Identity,
    device_table,
    edge_table,
    link_table,
    request_table,
    server_total_table,
)

DIRECTIONS = ("up", "down")


class RunRecorder:
    """An event sink that fills an existing, empty run folder.

    Iterations, and with `spans` every stage and message, stream to disk; requests are kept as one row of integers each.
    Whatever happened, `close` leaves readable files: a request without an end is `incomplete`.
    """

    def __init__(self, folder: Path, cast: Cast, *, spans: bool) -> None:
        self._folder = folder
        self._cast = cast
        self._rows = RequestRows()
        self._cluster = ClusterRecorder(cast)
        self._digest = EventDigest()
        self._hop_index = {hop: index for index, hop in enumerate(HOPS)}
        self._num_iterations = [0] * len(cast.servers)
        self._iterations = TableStream(folder / files.SERVERS, files.SERVER_SCHEMA)
        self._spans = TableStream(folder / files.SPANS, files.SPAN_SCHEMA, {"hop": HOPS}) if spans else None
        names: dict[str, Collection[str]] = {"direction": DIRECTIONS, "codec": self._rows.codecs}
        self._transfers = TableStream(folder / files.TRANSFERS, files.TRANSFER_SCHEMA, names) if spans else None
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            SpanEnded: self._span,
            TokenDelivered: self._rows.token,
            TransferEnded: self._transfer,
            IterationEnded: self._iteration,
            RequestArrived: self._rows.arrived,
            RequestAdmitted: self._admitted,
            CodecChanged: self._rows.codec_changed,
            RequestEnded: self._rows.ended,
            SequencePreempted: self._rows.preempted,
            SequenceResumed: self._rows.resumed,
            PrefixFound: self._rows.prefix_found,
            RequestRequeued: self._rows.requeued,
            ServerChanged: self._cluster.changed,
            ServersScaled: self._cluster.scaled,
        }

    def __call__(self, event: Event) -> None:
        """Take one event; they come in time order. A kind that no table keeps still counts in the digest."""
        self._digest(event)
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    @property
    def digest(self) -> str:
        """SHA-256 of all events so far, in canonical order. Meant for the end: it closes the current instant."""
        return self._digest.hexdigest()

    @property
    def num_events(self) -> int:
        return self._digest.num_events

    def close(self, end: RunEnd) -> None:
        """Write every table's rest and footer. Nothing may come after."""
        for stream in (self._iterations, self._spans, self._transfers):
            if stream is not None:
                stream.close()
        answers = Answers(quality=end.quality, texts=end.texts)
        requests = request_table(self._rows, Identity.of(self._cast), end.request_facts, answers)
        write_table(requests, self._folder / files.REQUESTS)
        write_table(device_table(requests, self._cast, end), self._folder / files.DEVICES)
        write_table(link_table(self._cast, end), self._folder / files.LINKS)
        if end.edges:
            write_table(edge_table(end), self._folder / files.EDGES)
        totals = server_total_table(self._num_iterations, self._cast, end)
        write_table(totals, self._folder / files.SERVER_TOTALS)
        self._cluster.close(self._folder)

    def _span(self, event: SpanEnded) -> None:
        hop, start_ns, end_ns, request = self._hop_index[event.hop], event.start_ns, event.end_ns, event.request
        rows = self._rows
        rows.cells[rows.base[request] + hop] += end_ns - start_ns
        if self._spans is not None:
            self._spans.append(request, event.step, hop, start_ns, end_ns, event.size_bytes)

    def _admitted(self, event: RequestAdmitted) -> None:
        rows = self._rows
        base = rows.base[event.request]
        if rows.cells[base + ADMITTED_NS] == UNKNOWN:  # a second time where its server failed
            rows.cells[base + ADMITTED_NS] = event.time_ns
        rows.cells[base + SPLIT] = event.split
        rows.cells[base + SERVER] = event.server
        rows.cells[base + CODEC] = rows.cells[base + CURRENT_CODEC] = rows.codec_number(event.codec)

    def _transfer(self, event: TransferEnded) -> None:
        self._rows.transfer(event)
        if self._transfers is not None:
            self._transfers.append(
                event.request,
                event.link,
                event.direction == "down",
                self._rows.message_codec(event),
                event.sent_ns,
                event.time_ns,
                event.payload_bytes,
                event.wire_bytes,
                event.num_packets,
                event.num_retransmissions,
                event.delivered,
            )

    def _iteration(self, event: IterationEnded) -> None:
        self._num_iterations[event.server] += 1
        self._iterations.append(
            event.server,
            event.iteration,
            event.start_ns,
            event.time_ns,
            event.num_sequences,
            event.prefill_tokens,
            event.decode_tokens,
            event.kv_tokens,
            event.num_waiting,
        )
