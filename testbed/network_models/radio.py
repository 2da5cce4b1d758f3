"""A radio that sleeps when nothing is under way, and takes its time to wake up (RRC idle to connected)."""

from __future__ import annotations

from dataclasses import replace

import simpy

from testbed.network_models.clock import Delivery, Timer
from testbed.network_models.transfer import Link, LinkSnapshot, Transfer
from testbed.network_models.transports.transport import Access
from testbed.scenarios.profiles import LinkProfile, RadioConfig


class Radio:
    """Shared by both directions. It sleeps at the start, and `idle_after` after the last message under way has ended.

    The first message then waits for the promotion, and so does every message that is handed over meanwhile.
    """

    __slots__ = ("_idle_after_ns", "_idle_from_ns", "_promotion_ns", "_ready_ns", "_under_way")

    def __init__(self, config: RadioConfig) -> None:
        self._promotion_ns, self._idle_after_ns = config.promotion, config.idle_after
        self._under_way = 0
        self._idle_from_ns = 0
        self._ready_ns = 0

    def begin(self, now_ns: int) -> int:
        """A message is handed over; the time from which on it may be sent."""
        if not self._under_way and now_ns >= self._idle_from_ns:
            self._ready_ns = now_ns + self._promotion_ns
        self._under_way += 1
        return max(now_ns, self._ready_ns)

    def end(self, now_ns: int) -> None:
        """A message was delivered or given up."""
        self._under_way -= 1
        self._idle_from_ns = now_ns + self._idle_after_ns


class RadioLink:
    """A link behind a radio: what waits for the radio is handed to the link, in order, once it is awake."""

    def __init__(self, env: simpy.Environment, link: Link, radio: Radio) -> None:
        self._env = env
        self._link = link
        self._radio = radio
        self._waiting = self._waiting_bytes = 0

    def send(self, payload_bytes: int) -> simpy.Event:
        """As the link's own; the wait for the radio is `connect_ns`."""
        now_ns = int(self._env.now)
        ready_ns = self._radio.begin(now_ns)
        if ready_ns == now_ns:
            done = self._link.send(payload_bytes)
            done.callbacks.append(self._ended)
            return done
        delayed = Delivery(self._env)
        self._waiting += 1
        self._waiting_bytes += payload_bytes
        Timer(self._env, ready_ns - now_ns, lambda _: self._hand_over(payload_bytes, now_ns, delayed))
        return delayed

    def _ended(self, _: simpy.Event) -> None:
        self._radio.end(int(self._env.now))

    def _hand_over(self, payload_bytes: int, sent_ns: int, delayed: Delivery) -> None:
        self._waiting -= 1
        self._waiting_bytes -= payload_bytes
        waited_ns = int(self._env.now) - sent_ns

        def settle(done: simpy.Event) -> None:
            transfer = done.value
            assert isinstance(transfer, Transfer)
            whole = transfer._replace(sent_ns=sent_ns, connect_ns=transfer.connect_ns + waited_ns)
            delayed.settle(whole, 0)

        done = self._link.send(payload_bytes)
        done.callbacks += [self._ended, settle]

    def snapshot(self) -> LinkSnapshot:
        """The link's counters, and the messages that wait for the radio."""
        account = self._link.snapshot()
        return replace(
            account,
            messages=account.messages + self._waiting,
            payload_bytes=account.payload_bytes + self._waiting_bytes,
        )


def radio_of(profile: LinkProfile) -> Radio | None:
    """One for a device, whatever the number of its connections."""
    return None if profile.radio is None else Radio(profile.radio)


def behind_radio(env: simpy.Environment, access: Access, radio: Radio | None) -> Access:
    """Both directions behind this radio, where there is one."""
    if radio is None:
        return access
    return Access(RadioLink(env, access.up, radio), RadioLink(env, access.down, radio))
