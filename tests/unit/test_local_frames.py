"""Frames between emulated devices and server: what arrives in pieces is put together, what is no frame is refused."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.studies.local.frames import (
    MAX_BODY_BYTES,
    Frame,
    FrameError,
    FrameReader,
    Kind,
    Opening,
    pack,
    pack_token,
    unpack_token,
)
from testbed.studies.local.wire import Pace, PacedRate

FRAMES = st.lists(
    st.builds(
        Frame,
        kind=st.sampled_from(Kind),
        request=st.integers(0, 2**32 - 1),
        sent_ns=st.integers(0, 2**62),
        body=st.binary(max_size=50),
    ),
    max_size=5,
)


@given(FRAMES, st.integers(1, 20))
def test_frames_cut_anywhere_arrive_whole_and_in_order(frames: list[Frame], piece: int) -> None:
    data = b"".join(pack(*frame) for frame in frames)
    reader = FrameReader()
    found = [frame for at in range(0, len(data), piece) for frame in reader.feed(data[at : at + piece])]
    assert found == frames


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_refused(data: bytes) -> None:
    with suppress(FrameError):
        FrameReader().feed(data)


def test_a_frame_that_claims_too_much_is_refused_before_it_comes() -> None:
    with pytest.raises(FrameError, match="bytes"):
        FrameReader().feed(struct.pack("<I", MAX_BODY_BYTES + 100))
    with pytest.raises(FrameError, match="bytes"):
        FrameReader().feed(struct.pack("<I", 3))


def test_an_unknown_kind_is_refused() -> None:
    frame = bytearray(pack(Kind.STEP, 1, 2, b"x"))
    frame[4] = 77
    with pytest.raises(FrameError, match="unknown kind 77"):
        FrameReader().feed(bytes(frame))


def test_openings_and_tokens_come_back_or_are_refused() -> None:
    opening = Opening(3, 6, 20, 40, 2**63 - 1, "ts-tabq(delta=0.1)")
    assert Opening.unpack(opening.pack()) == opening
    assert unpack_token(pack_token(1404)) == 1404
    for body in (b"", b"12345", b"\xff" * 21 + b"\xff\xfe"):
        with pytest.raises(FrameError):
            Opening.unpack(body)
    with pytest.raises(FrameError, match="4 bytes"):
        unpack_token(b"123")


def test_a_paced_message_arrives_as_a_link_without_losses_delivers_it() -> None:
    pace = Pace(PacedRate(rate_bps=8_000_000, delay_ns=5_000_000, mtu_bytes=1500, header_bytes=40))
    assert pace.arrival_ns(0, 1460) == 1_500_000 + 5_000_000
    assert pace.arrival_ns(0, 2920) == 1_500_000 + 3_000_000 + 5_000_000  # behind the first one
    assert pace.arrival_ns(10_000_000, 4) == 10_000_000 + 44_000 + 5_000_000
