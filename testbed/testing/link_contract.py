"""What every link model must hold: subclass `LinkContract` in a test module, say how a link is made, run pytest.

class TestMyLink(LinkContract):
    def make_link(self, env, *, profile, direction, entity, seed):
        return MyLink(env, profile=profile, direction=direction, entity=entity, seed=seed)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from scipy import stats

from testbed.core.units import serialisation_ns
from testbed.network_models.exercise import Sent, exercise
from testbed.network_models.transfer import Direction, Link, LinkSnapshot, Transfer
from testbed.scenarios.profiles import LinkProfile

if TYPE_CHECKING:
    import simpy

MS = 1_000_000
ALPHA = 1e-4  # how often a right model may fail a statistical test, were its seed not fixed
SEED, ENTITY = 11, 3
RATE_BPS = 8_000_000


def binomial_interval(successes: int, trials: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Clopper and Pearson's interval for a probability: it covers the true one with at least 1 - alpha."""
    low = stats.beta.ppf(alpha / 2, successes, trials - successes + 1) if successes else 0.0
    high = stats.beta.ppf(1 - alpha / 2, successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One link's run to the end."""

    profile: LinkProfile
    transfers: list[Transfer]
    account: LinkSnapshot


class LinkContract(ABC):
    """Byte accounts, physical bounds, exact breakdown, order, loss frequency, keyed draws."""

    fields: ClassVar[Mapping[str, object]] = {}  # what a model needs in its profile beyond the common fields
    in_order: ClassVar[bool] = True  # without loss and jitter, messages end as they were sent
    # Whether what is sent when follows from the times of acknowledgements: then a timer may expire for nothing, and
    # more bandwidth may make a message late.
    reacts: ClassVar[bool] = False

    @abstractmethod
    def make_link(
        self, env: simpy.Environment, *, profile: LinkProfile, direction: Direction, entity: int, seed: int
    ) -> Link:
        """A fresh link on this clock."""

    def profile(self, **changes: object) -> LinkProfile:
        """A slow, lossy, jittery link, with changes."""
        common: dict[str, Any] = {
            "name": "contract",
            "rate_up": "8 Mbit/s",
            "rate_down": "8 Mbit/s",
            "propagation_delay": "15 ms",
            "jitter": {"law": "gamma", "mean": "4 ms", "std": "2 ms"},
            "loss": 0.05,
            "queue": "60 kB",
        }
        return LinkProfile(**{**common, **self.fields, **changes})

    def run_link(
        self,
        messages: list[Sent],
        *,
        direction: Direction = Direction.UP,
        entity: int = ENTITY,
        seed: int = SEED,
        neighbour_messages: int = 0,
        **changes: object,
    ) -> Run:
        """Send the messages over one link, beside a neighbour of id entity + 1 that has traffic of its own."""
        profile = self.profile(**changes)

        def make(env: simpy.Environment) -> Link:
            neighbour = self.make_link(env, profile=profile, direction=direction, entity=entity + 1, seed=seed)
            for _ in range(neighbour_messages):
                neighbour.send(5000)
            return self.make_link(env, profile=profile, direction=direction, entity=entity, seed=seed)

        transfers, account = exercise(make, messages)
        return Run(profile=profile, transfers=transfers, account=account)

    def mixed_messages(self) -> list[Sent]:
        """Small, large and empty messages, in bursts that overlap and overflow the queue."""
        sizes = (0, 1, 1460, 1461, 16_384, 100_000, 400)
        return [Sent((index // 3) * 60 * MS, sizes[index % len(sizes)]) for index in range(210)]

    def test_every_message_ends_and_its_bytes_are_accounted_for(self) -> None:
        messages = self.mixed_messages()
        run = self.run_link(messages)
        sent, account = run.transfers, run.account
        assert [transfer.payload_bytes for transfer in sent] == [message.payload_bytes for message in messages]
        assert account.messages == len(messages) == account.delivered + account.lost
        assert account.delivered == sum(transfer.delivered for transfer in sent)
        assert account.payload_bytes == sum(message.payload_bytes for message in messages)
        assert account.payload_bytes == account.delivered_payload_bytes + account.lost_payload_bytes
        assert account.lost_payload_bytes == sum(item.payload_bytes for item in sent if not item.delivered)
        assert account.wire_bytes >= sum(transfer.payload_bytes for transfer in sent if transfer.delivered)

    def test_no_packet_outlives_its_transmissions(self) -> None:
        account = self.run_link(self.mixed_messages()).account
        gone = account.dropped_packets + account.lost_packets + account.corrupt_packets
        assert account.lost or account.packets + account.retransmissions - gone >= account.packets

    def test_a_delivered_message_was_clocked_out_whole(self) -> None:
        for transfer in self.run_link(self.mixed_messages(), loss=0.0, queue="10 MB").transfers:
            assert transfer.delivered
            assert transfer.wire_bytes >= transfer.payload_bytes

    def test_the_parts_add_up_to_the_whole(self) -> None:
        for changes in ({}, {"loss": 0.5}, {"jitter": None, "loss": 0.0}, {"queue": "1500 B"}):
            for transfer in self.run_link(self.mixed_messages()[:60], **changes).transfers:
                parts = (
                    transfer.connect_ns,
                    transfer.window_ns,
                    transfer.queue_ns,
                    transfer.serialise_ns,
                    transfer.propagate_ns,
                    transfer.jitter_ns,
                    transfer.retransmit_ns,
                )
                assert min(parts) >= 0
                assert all(isinstance(part, int) for part in parts)
                assert sum(parts) == transfer.ended_ns - transfer.sent_ns

    def test_messages_are_sent_when_they_are_handed_over(self) -> None:
        messages = self.mixed_messages()
        assert [item.sent_ns for item in self.run_link(messages).transfers] == [item.time_ns for item in messages]

    def test_none_is_faster_than_rate_and_propagation(self) -> None:
        for direction in Direction:
            run = self.run_link(self.mixed_messages(), direction=direction, rate_down="40 Mbit/s")
            rate_bps = RATE_BPS if direction is Direction.UP else 5 * RATE_BPS
            for item in run.transfers:
                least_ns = serialisation_ns(item.payload_bytes, rate_bps) + run.profile.propagation_delay
                assert not item.delivered or item.ended_ns - item.sent_ns >= least_ns

    def test_all_together_are_not_faster_than_the_rate(self) -> None:
        run = self.run_link([Sent(0, 20_000)] * 50, loss=0.0, queue="10 MB")
        last_arrival_ns = max(item.ended_ns for item in run.transfers)
        payload_ns = serialisation_ns(run.account.payload_bytes, RATE_BPS)
        assert last_arrival_ns >= payload_ns + run.profile.propagation_delay
        assert payload_ns <= run.account.busy_ns <= last_arrival_ns

    def test_more_bandwidth_is_never_later(self) -> None:
        plain: dict[str, Any] = {"loss": 0.0, "queue": "10 MB"}
        slow = self.run_link(self.mixed_messages(), **plain).transfers
        fast = self.run_link(self.mixed_messages(), rate_up="80 Mbit/s", rate_down="80 Mbit/s", **plain).transfers
        assert self.reacts or all(early.ended_ns <= late.ended_ns for early, late in zip(fast, slow, strict=True))

    def test_order_is_kept_where_it_is_promised(self) -> None:
        run = self.run_link(self.mixed_messages(), loss=0.0, jitter=None, queue="10 MB")
        ends = [item.ended_ns for item in run.transfers]
        assert not self.in_order or ends == sorted(ends)

    def test_the_queue_keeps_its_limit(self) -> None:
        limit_bytes = 4000
        run = self.run_link(self.mixed_messages(), queue=f"{limit_bytes} B")
        assert 0 < run.account.peak_backlog_bytes <= limit_bytes

    def test_packets_are_lost_as_often_as_the_profile_says(self) -> None:
        messages = [Sent(index * 2 * MS, 100) for index in range(3000)]
        for p_loss in (0.005, 0.2):
            account = self.run_link(messages, loss=p_loss, queue="10 MB").account
            low, high = binomial_interval(account.lost_packets, account.packets + account.retransmissions)
            assert account.dropped_packets == 0
            assert low <= p_loss <= high

    def test_without_loss_nothing_is_lost(self) -> None:
        account = self.run_link(self.mixed_messages(), loss=0.0, queue="10 MB").account
        assert account.lost_packets == account.dropped_packets == account.lost == 0
        assert self.reacts or account.retransmissions == 0

    def test_the_same_seed_gives_the_same_path(self) -> None:
        assert self.run_link(self.mixed_messages()) == self.run_link(self.mixed_messages())

    def test_another_links_traffic_changes_no_draw(self) -> None:
        alone = self.run_link(self.mixed_messages())
        assert self.run_link(self.mixed_messages(), neighbour_messages=40) == alone

    def test_seed_entity_and_direction_each_give_other_draws(self) -> None:
        messages = self.mixed_messages()
        base = self.run_link(messages).transfers
        assert self.run_link(messages, seed=SEED + 1).transfers != base
        assert self.run_link(messages, entity=ENTITY + 1).transfers != base
        assert self.run_link(messages, direction=Direction.DOWN).transfers != base

    def test_looking_changes_nothing(self) -> None:
        messages = self.mixed_messages()

        def make_looker(env: simpy.Environment) -> Link:
            link = self.make_link(env, profile=self.profile(), direction=Direction.UP, entity=ENTITY, seed=SEED)
            return _Looker(link)

        looked_at, account = exercise(make_looker, messages)
        unseen = self.run_link(messages)
        assert looked_at == unseen.transfers
        assert account == unseen.account


class _Looker:
    """A link that is looked at before and after each message and at each end."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.snapshot = link.snapshot

    def send(self, payload_bytes: int) -> simpy.Event:
        before = self.snapshot()
        done = self._link.send(payload_bytes)
        assert self.snapshot().messages == before.messages + 1
        done.callbacks.append(self._look)
        return done

    def _look(self, _: simpy.Event) -> None:
        self.snapshot()
