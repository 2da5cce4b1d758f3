"""The emulated server: it serves devices that say the secret, and shows everybody else the door."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import numpy as np
import pytest

from testbed.codecs.framing import Envelope
from testbed.codecs.named import make_codec
from testbed.models.source import resolve
from testbed.scenarios.schema import Servers
from testbed.schedulers.fifo import FifoScheduler
from testbed.studies.local.back_server import BackServer
from testbed.studies.local.calibrate import host_spec
from testbed.studies.local.frames import FrameError, FrameReader, Kind, Opening, pack, unpack_token
from testbed.studies.local.plan import PlannedDevice, ServerPlan
from testbed.studies.local.wire import PacedRate, now_ns

SPLIT, SECRET = 11, b"0123456789abcdef"
LINK = PacedRate(rate_bps=0, delay_ns=0, mtu_bytes=1500, header_bytes=40)
Ends = tuple[BackServer, tuple[str, int]]


@pytest.fixture
def ends() -> Iterator[Ends]:
    device = PlannedDevice(device=0, split=SPLIT, codec="int8", up=LINK, down=LINK)
    servers = Servers.model_construct(max_batch=4, max_prefill_tokens=64, scheduler=FifoScheduler.Config())
    plan = ServerPlan(
        spec=host_spec(resolve("pebble")), servers=servers, kv_capacity_bytes=2**30, devices=(device,), secret=SECRET
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = BackServer(plan, listener)
    yield server, listener.getsockname()
    server.close()


def connected(ends: Ends, hello: bytes = SECRET) -> socket.socket:
    server, address = ends
    sock = socket.create_connection(address, timeout=5)
    sock.sendall(pack(Kind.HELLO, 0, now_ns(), hello))
    turns(server)
    return sock


def turns(server: BackServer, number: int = 4) -> None:
    for _ in range(number):
        server.turn(0.01)


def opening(split: int = SPLIT) -> bytes:
    return pack(Kind.OPEN, 5, now_ns(), Opening(0, split, 2, 2, 0, "int8").pack())


def step(position: int = 0, request: int = 5, num_tokens: int = 2) -> bytes:
    hidden_ND = np.ones((num_tokens, 96), dtype=np.float32)
    return pack(Kind.STEP, request, now_ns(), make_codec("int8").encode(hidden_ND, Envelope(5, position, SPLIT)))


def test_a_request_gets_its_tokens_one_by_one(ends: Ends) -> None:
    sock = connected(ends)
    sock.sendall(opening() + step())
    turns(ends[0])
    (first,) = FrameReader().feed(sock.recv(1000))
    assert (first.kind, first.request) == (Kind.TOKEN, 5)
    assert 0 <= unpack_token(first.body) < 1405
    sock.sendall(step(position=2, num_tokens=1))
    turns(ends[0])
    (second,) = FrameReader().feed(sock.recv(1000))
    assert second.sent_ns > first.sent_ns
    assert ends[0].num_iterations == 2
    sock.close()


@pytest.mark.parametrize(
    "bytes_sent",
    [b"GET / HTTP/1.1\r\n\r\n", pack(Kind.HELLO, 0, 0, b"wrong"), opening()],
    ids=["web", "wrong", "early"],
)
def test_a_stranger_is_shown_the_door_and_the_server_goes_on(ends: Ends, bytes_sent: bytes) -> None:
    stranger = socket.create_connection(ends[1], timeout=5)
    stranger.sendall(bytes_sent)
    turns(ends[0])
    assert stranger.recv(10) == b""
    stranger.close()
    test_a_request_gets_its_tokens_one_by_one(ends)


@pytest.mark.parametrize(
    "bad",
    [
        step(request=6),  # of a request that is not open
        opening(),  # of one that is
        pack(Kind.STEP, 5, 0, b"no message at all, but long enough to have a header"),
        pack(Kind.TOKEN, 5, 0, b"1234"),
        pack(Kind.OPEN, 9, 0, Opening(0, 12, 2, 2, 0, "int8").pack()),
    ],
    ids=["not open", "open already", "no message", "a server's", "too deep a cut"],
)
def test_a_device_that_breaks_the_protocol_ends_the_run(ends: Ends, bad: bytes) -> None:
    sock = connected(ends)
    sock.sendall(opening())
    turns(ends[0])
    sock.sendall(bad)
    with pytest.raises(FrameError):
        turns(ends[0])
    sock.close()
