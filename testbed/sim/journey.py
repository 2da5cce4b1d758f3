"""What a request carries along, and the three things that take its time: a device, a link, a server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from testbed.actors.calls import TOKEN_BYTES
from testbed.actors.cloud import REFUSED, BackStep
from testbed.actors.edge import Payload, Session, Step
from testbed.actors.payload_law import SizeOf
from testbed.codecs.framing import Codec
from testbed.core.errors import TestbedError
from testbed.core.events import Hop, Outcome
from testbed.core.plan import MessageObservation
from testbed.core.work import KvDemand
from testbed.network_models.transfer import Direction, Fate, Link
from testbed.sim.choosing import Adapt
from testbed.sim.device import Device
from testbed.sim.kernel import Clock, Wait
from testbed.sim.request_table import Request
from testbed.sim.server import Asked, Served, Server
from testbed.sim.tampering import Tampering
from testbed.sim.trace import Trace


class EndedEarlyError(TestbedError):
    """The request can't go on, and ends with this outcome."""

    def __init__(self, problem: str, outcome: Outcome = Outcome.FAILED) -> None:
        self.outcome = outcome
        super().__init__(problem)


class MessageLostError(EndedEarlyError):
    """A link gave a message up, or changed it."""

    @classmethod
    def on(cls, direction: Direction, fate: Fate) -> MessageLostError:
        """Not delivered by a link."""
        if fate is Fate.TIMEOUT:
            return cls(f"{direction}-link timed out", Outcome.LINK_TIMEOUT)
        return cls(f"message lost on the {direction}-link")

    @classmethod
    def refused(cls, *, is_sealed: bool) -> MessageLostError:
        """It arrived, with a wrong bit that its tag or its checksum shows."""
        if is_sealed:
            return cls("message not authentic", Outcome.AUTHENTICATION)
        return cls("message refused: wrong checksum")

    @classmethod
    def unnoticed(cls, direction: Direction) -> MessageLostError:
        """A wrong bit in bare token ids: the ends would go on, with an answer to something else."""
        return cls(f"wrong token from the {direction}-link: bare token ids have no checksum")

    @classmethod
    def altered_down(cls, answer_bytes: int, *, is_sealed: bool) -> MessageLostError:
        """An answer with a wrong bit: a token id, or one with keys and values, whose message has a checksum."""
        if is_sealed or answer_bytes > TOKEN_BYTES:
            return cls.refused(is_sealed=is_sealed)
        return cls.unnoticed(Direction.DOWN)


class TurnedAwayError(EndedEarlyError):
    """No server takes the request: nothing of it has run."""


class ServerLostError(EndedEarlyError):
    """The request's server has failed, and with it all that it held of the request."""

    def __init__(self, server: int) -> None:
        super().__init__(f"server {server} failed", Outcome.SERVER_FAILURE)


@dataclass(slots=True, kw_only=True)
class Journey:
    """One admitted request. `server` is None where the device holds the whole model."""

    clock: Clock
    request: Request
    session: Session
    device: Device
    server: Server | None
    trace: Trace
    adapt: Adapt | None  # asked before each message of hidden states
    codec_of: Callable[[str], tuple[Codec, SizeOf]]
    tampering: Tampering
    kv_demand: KvDemand  # on the server's KV cache
    stop_tokens: frozenset[int]
    server_life: int  # the server's when the request was sent there
    step: Step  # the pass to run next: the prompt, then the token chosen last
    answer_bytes: int = TOKEN_BYTES  # of the last pass, in the clear
    output: list[int] = field(default_factory=list)
    bytes_sent: int = 0
    last_message_bytes: int = 0
    last_send_ns: int = 0
    served_ns: int | None = None  # when the server had its last token

    @property
    def is_real(self) -> bool:
        return self.request.prompt is not None

    @property
    def server_goes_on(self) -> bool:
        """At split 0 the server has all it needs for the next step: tokens stream down meanwhile."""
        return self.session.split == 0

    def choose(self, token: int) -> str:
        """Take the token that the last pass chose: why generation ends with it, or "" when it goes on."""
        self.output.append(token)
        past_tokens = self.request.num_prompt_tokens + len(self.output) - 1
        self.step = Step(num_tokens=1, past_tokens=past_tokens, tokens=(token,) if self.is_real else None)
        if token in self.stop_tokens:
            return "eos"
        return "length" if len(self.output) == self.request.max_output_tokens else ""

    def deliver(self) -> None:
        """The device has the token chosen last."""
        self.trace.token(self.clock.now_ns, len(self.output) - 1, self.output[-1])

    def claim(self) -> None:
        """The device's memory for the step to come.

        Raises EndedEarlyError where it has no more.
        """
        if not self.device.grows_to(self.step.past_tokens + self.step.num_tokens):
            raise EndedEarlyError("keys and values outgrew the device's memory", Outcome.OOM)

    def compute(self, hop: Hop, duration_ns: int) -> Wait[None]:
        """The device is busy; what comes out of it is asked for only afterwards, so real work goes on meanwhile."""
        yield self.clock.timeout(self.device.start_stage(self.clock.now_ns, duration_ns))
        self.device.rest()
        self.trace.span(self.clock.now_ns, hop)

    def link(self, direction: Direction) -> Link:
        """The device's link to the request's server, one way."""
        assert self.server is not None, "a device that holds the whole model sends nothing"
        access = self.device.links.to(self.server.server)
        return access.up if direction is Direction.UP else access.down

    def carry(self, size_bytes: int, direction: Direction) -> Wait[bool]:
        """One message over the device's link: whether it arrives as it was sent, every bit.

        Raises MessageLostError where the link gives it up.
        """
        transfer = yield self.link(direction).send(size_bytes)
        self.trace.moved(transfer, direction)
        self.device.heard()
        self.trace.waited(transfer, direction)
        if not transfer.delivered:
            raise MessageLostError.on(direction, transfer.fate)
        return not transfer.is_corrupt

    def choose_codec(self) -> None:
        """Ask the policy how the next message is to be encoded; the cut stays as it was admitted."""
        if self.adapt is None:
            return
        name = self.adapt(self._observe())
        if name != self.session.codec_name:
            codec, size_of = self.codec_of(name)
            self.session = replace(self.session, codec_name=name, codec=codec, size_of=size_of)
            self.trace.codec_changed(self.clock.now_ns, name)

    def _observe(self) -> MessageObservation:
        return MessageObservation(
            now_ns=self.clock.now_ns,
            step=self.trace.step,
            split=self.session.split,
            num_layers=self.device.shape.num_layers,
            num_tokens=self.step.num_tokens,
            past_tokens=self.step.past_tokens,
            codec=self.session.codec_name,
            bytes_sent=self.bytes_sent,
            last_message_bytes=self.last_message_bytes,
            last_send_ns=self.last_send_ns,
        )

    def send_up(self, payload: Payload) -> Wait[Payload]:
        """The message of a step, as it arrives.

        Raises MessageLostError where the link gives it up, or changes a bit that nobody can tell.
        """
        sent_ns = self.clock.now_ns
        is_intact = yield from self.carry(payload.size_bytes, Direction.UP)
        self.bytes_sent += payload.size_bytes
        self.last_message_bytes, self.last_send_ns = payload.size_bytes, self.clock.now_ns - sent_ns
        can_tell = payload.seal_bytes or self.session.split  # bare token ids have no checksum
        if not is_intact:
            if not can_tell:
                raise MessageLostError.unnoticed(Direction.UP)
            return self.tampering.altered(payload, self.request, self.trace.step)
        return self.tampering.passed(payload, self.request, self.trace.step) if can_tell else payload

    def send_down(self) -> Wait[None]:
        """The token chosen last, from the server to the device.

        Raises MessageLostError where the link gives it up or changes a bit.
        """
        sealer = self.device.edge.sealer
        is_intact = yield from self.carry(self.answer_bytes + sealer.overhead_bytes, Direction.DOWN)
        if open_ns := sealer.time_ns(self.answer_bytes):
            yield from self.compute(Hop.OPEN_TOKEN, sealer.spend(open_ns))
        if not is_intact:
            raise MessageLostError.altered_down(self.answer_bytes, is_sealed=sealer.overhead_bytes > 0)
        self.deliver()

    def _server_step(self) -> Step:
        """The pass as the server runs it: with all earlier positions again where it keeps none."""
        rerun = self.session.crossing.rerun_tokens(self.step.past_tokens)
        num_tokens, past_tokens = self.step.num_tokens + rerun, self.step.past_tokens - rerun
        return Step(num_tokens=num_tokens, past_tokens=past_tokens, tokens=self.step.tokens)

    def _asked(self) -> Asked:
        return Asked(
            device=self.request.device,
            since_ns=self.request.arrival_ns if self.served_ns is None else self.served_ns,
            is_first=self.served_ns is None,
            max_output_tokens=self.request.max_output_tokens,
            session=self.request.session,
        )

    def serve(self, server: Server, payload: Payload) -> Wait[int]:
        """The server's share of a step: wait for an iteration, which serves many; the next token comes out of it.

        Raises MessageLostError where the payload was altered on its way, ServerLostError where the server is down,
        was meanwhile, or fails before the pass is through.
        """
        if not server.knows(self.server_life):
            raise ServerLostError(server.server)
        step = BackStep(session=self.session, step=self._server_step(), payload=payload, real=self.is_real)
        self.answer_bytes = step.answer_bytes
        served: Served | None = yield server.submit(step, self.kv_demand, self._asked())
        if served is None:
            self.trace.span(self.clock.now_ns, Hop.CUT_SHORT)
            raise ServerLostError(server.server)
        now_ns = self.served_ns = self.clock.now_ns
        parts = (
            (Hop.OPEN, served.open_ns),
            (Hop.DECODE, served.decode_ns),
            (Hop.BACK, served.back_ns),
            (Hop.SEAL_TOKEN, served.seal_ns),
        )
        wait_ns = now_ns - self.trace.cursor_ns - sum(duration_ns for _, duration_ns in parts)
        self.trace.spans(now_ns, (Hop.SERVER_WAIT, wait_ns), *parts)
        if served.token == REFUSED:
            raise MessageLostError.refused(is_sealed=payload.seal_bytes > 0)
        return served.token
