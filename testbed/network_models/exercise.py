"""One link alone, driven by a list of messages: for contract suites and for a first look at a profile."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import NamedTuple

import simpy

from testbed.network_models.transfer import Link, LinkSnapshot, Transfer


class Sent(NamedTuple):
    """One message: when it is handed over, and its size."""

    time_ns: int
    payload_bytes: int


def exercise(
    make_link: Callable[[simpy.Environment], Link], messages: Iterable[Sent]
) -> tuple[list[Transfer], LinkSnapshot]:
    """Send the messages (ascending times) over a fresh link until all have ended.

    Returns a transfer per message, in the order of sending, and the link's counters after the last.
    """
    env = simpy.Environment()
    link = make_link(env)
    transfers: dict[int, Transfer] = {}
    env.process(_send(env, link, messages, transfers))
    env.run()
    return [transfers[number] for number in range(len(transfers))], link.snapshot()


def exercise_in_turn(
    make_link: Callable[[simpy.Environment], Link], payloads_bytes: Iterable[int]
) -> tuple[list[Transfer], LinkSnapshot]:
    """Send each message when the one before has ended, as the steps of one request do."""
    env = simpy.Environment()
    link = make_link(env)
    transfers: list[Transfer] = []

    def send() -> Generator[simpy.Event, Transfer, None]:
        for payload_bytes in payloads_bytes:
            transfers.append((yield link.send(payload_bytes)))

    env.process(send())
    env.run()
    return transfers, link.snapshot()


def _send(
    env: simpy.Environment, link: Link, messages: Iterable[Sent], transfers: dict[int, Transfer]
) -> Generator[simpy.Event, None, None]:
    for number, message in enumerate(messages):
        if message.time_ns > env.now:
            yield env.timeout(message.time_ns - int(env.now))
        link.send(message.payload_bytes).callbacks.append(partial(_keep, transfers, number))


def _keep(transfers: dict[int, Transfer], number: int, done: simpy.Event) -> None:
    assert isinstance(done.value, Transfer)
    transfers[number] = done.value
