"""One request's account of its time: spans that follow each other without gap, and what it has to show."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.core.events import (
    CodecChanged,
    Event,
    EventSink,
    Hop,
    Outcome,
    RequestAdmitted,
    RequestArrived,
    RequestEnded,
    RequestRequeued,
    SpanEnded,
    TokenDelivered,
    TransferEnded,
)
from testbed.network_models.transfer import Direction, Transfer
from testbed.sim.cut import Cut
from testbed.sim.request_table import Request

_PIECES = {
    Direction.UP: (
        Hop.UP_CONNECT,
        Hop.UP_WINDOW,
        Hop.UP_QUEUE,
        Hop.UP_SERIALISE,
        Hop.UP_RETRANSMIT,
        Hop.UP_PROPAGATE,
        Hop.UP_JITTER,
    ),
    Direction.DOWN: (
        Hop.DOWN_CONNECT,
        Hop.DOWN_WINDOW,
        Hop.DOWN_QUEUE,
        Hop.DOWN_SERIALISE,
        Hop.DOWN_RETRANSMIT,
        Hop.DOWN_PROPAGATE,
        Hop.DOWN_JITTER,
    ),
}


class Trace:
    """Emits a request's events. `cursor_ns` is where its next span begins. Once it has ended nothing is told of it."""

    __slots__ = ("_cut_hop", "_emit", "_num_tokens", "cursor_ns", "device", "request", "step")

    def __init__(self, request: Request, emit: EventSink) -> None:
        self.request = request.request
        self.device = request.device
        self.step = 0
        self.cursor_ns = request.arrival_ns
        self._emit = emit
        self._num_tokens = 0
        self._cut_hop = Hop.DEVICE_WAIT  # what it does until its turn
        self._emit(
            RequestArrived(
                time_ns=request.arrival_ns,
                request=request.request,
                device=request.device,
                prompt_tokens=request.num_prompt_tokens,
                max_output_tokens=request.max_output_tokens,
            )
        )

    def admitted(self, now_ns: int, *, split: int, codec: str, server: int) -> None:
        self._emit(RequestAdmitted(time_ns=now_ns, request=self.request, split=split, codec=codec, server=server))

    def requeued(self, now_ns: int, server: int) -> None:
        """Its server failed; it begins anew."""
        self.step = 0
        self._emit(RequestRequeued(time_ns=now_ns, request=self.request, server=server))

    def codec_changed(self, now_ns: int, codec: str) -> None:
        """The next message is encoded otherwise than the one before."""
        self._emit(CodecChanged(time_ns=now_ns, request=self.request, step=self.step, codec=codec))

    def span(self, now_ns: int, hop: Hop) -> None:
        """What passed since the last span was `hop`; nothing where no time passed."""
        self._cut_hop = Hop.CUT_SHORT
        if now_ns > self.cursor_ns:
            self._span(now_ns, hop, self.cursor_ns, now_ns, 0)

    def spans(self, now_ns: int, *parts: tuple[Hop, int]) -> None:
        """What passed since the last span, as consecutive (hop, duration) parts that end now."""
        for hop, duration_ns in parts:
            if duration_ns:
                self._span(now_ns, hop, self.cursor_ns, self.cursor_ns + duration_ns, 0)
        assert self.cursor_ns == now_ns, "a request's spans add up to its time"

    def waited(self, transfer: Transfer, direction: Direction) -> None:
        """A message that the request waited for has arrived, or was given up: the hops of its way."""
        start_ns = transfer.sent_ns
        for hop, duration_ns in _pieces(transfer, direction):
            end_ns = start_ns + duration_ns
            # A token streamed down while the server went on was waited for only from the last span's end.
            if end_ns > self.cursor_ns:
                self._span(transfer.ended_ns, hop, self.cursor_ns, end_ns, transfer.wire_bytes)
            start_ns = end_ns

    def moved(self, transfer: Transfer, direction: Direction) -> None:
        """Account for a message's bytes."""
        self._emit(
            TransferEnded(
                time_ns=transfer.ended_ns,
                request=self.request,
                link=self.device,
                direction=direction.value,
                sent_ns=transfer.sent_ns,
                payload_bytes=transfer.payload_bytes,
                wire_bytes=transfer.wire_bytes,
                num_packets=transfer.num_packets,
                num_retransmissions=transfer.num_retransmissions,
                delivered=transfer.delivered,
            )
        )

    def token(self, now_ns: int, index: int, token: int) -> None:
        """Delivered; told once, also where it was generated again after a server failure."""
        if index < self._num_tokens:
            return
        self._num_tokens += 1
        self._emit(TokenDelivered(time_ns=now_ns, request=self.request, index=index, token=token))

    def ended(self, now_ns: int, outcome: Outcome, reason: str) -> None:
        assert self.cursor_ns == now_ns, "a request's spans add up to its time"
        self._emit(RequestEnded(time_ns=now_ns, request=self.request, outcome=outcome, reason=reason))
        self._emit = _unheard  # messages that were under way may still arrive

    def cut_short(self, now_ns: int, cut: Cut) -> None:
        """It ends in the middle of something."""
        self.span(now_ns, self._cut_hop)
        self.ended(now_ns, cut.outcome, cut.reason)

    def _span(self, now_ns: int, hop: Hop, start_ns: int, end_ns: int, size_bytes: int) -> None:
        self.cursor_ns = end_ns
        self._emit(
            SpanEnded(
                time_ns=now_ns,
                request=self.request,
                step=self.step,
                hop=hop,
                start_ns=start_ns,
                end_ns=end_ns,
                size_bytes=size_bytes,
            )
        )


def _unheard(event: Event) -> None:
    pass


def _pieces(transfer: Transfer, direction: Direction) -> Iterator[tuple[Hop, int]]:
    """The parts of a transfer's time in the order in which its last packet met them."""
    durations = (
        transfer.connect_ns,
        transfer.window_ns,
        transfer.queue_ns,
        transfer.serialise_ns,
        transfer.retransmit_ns,
        transfer.propagate_ns,
        transfer.jitter_ns,
    )
    return zip(_PIECES[direction], durations, strict=True)
