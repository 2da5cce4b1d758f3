"""Sealed messages: the primitives are called as their standards say, and nothing but the message itself opens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.codecs import seal as seals
from testbed.codecs.framing import SEAL_OVERHEAD_BYTES, CodecError
from testbed.codecs.seal import Seal, SealError, Way, run_secret, session_key

SUITES = ["aes-gcm", "chacha20"]
KEY = session_key(run_secret(7), 3)
SUNSCREEN = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    b"sunscreen would be it."
)


def end(suite, **changes):
    return Seal(suite, **{"key": KEY, "session": 3, "split": 2, "way": Way.UP, **changes})


def pair(suite):
    """A sender's and a receiver's end of one direction."""
    return end(suite), end(suite)


def test_chacha20_poly1305_is_that_of_rfc_8439():
    """Section 2.8.2: key, nonce and associated data as they stand there."""
    cipher = seals._CIPHERS["chacha20"](bytes(range(0x80, 0xA0)))
    nonce = bytes.fromhex("07000000") + bytes.fromhex("4041424344454647")
    sealed = cipher.encrypt(nonce, SUNSCREEN, bytes.fromhex("50515253c0c1c2c3c4c5c6c7"))
    assert sealed[:16] == bytes.fromhex("d31a8d34648e60db7b86afbc53ef7ec2")
    assert sealed[-16:] == bytes.fromhex("1ae10b594f09e26a7e902ecbd0600691")


def test_aes_gcm_is_that_of_nist():
    """Test case 16 of the GCM specification that NIST adopted: 256-bit key, 96-bit nonce, associated data."""
    cipher = seals._CIPHERS["aes-gcm"](bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2))
    plain = bytes.fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    )
    sealed = cipher.encrypt(
        bytes.fromhex("cafebabefacedbaddecaf888"), plain, bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    )
    assert sealed[:16] == bytes.fromhex("522dc1f099567d07f47f37a32a84427d")
    assert sealed[-16:] == bytes.fromhex("76fc6ece0f4e1768cddf8853bb2d551b")


def test_keys_are_hkdf_sha256_of_the_run_and_the_session():
    """Against RFC 5869 written out: extract with a salt of zeros, then one round of expand."""
    import hashlib
    import hmac

    secret = run_secret(7)
    extracted = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    info = b"testbed session " + (3).to_bytes(8, "little")
    assert hmac.new(extracted, info + b"\x01", hashlib.sha256).digest() == KEY
    keys = {session_key(run_secret(seed), session) for seed in range(4) for session in range(50)}
    assert len(keys) == 200


@pytest.mark.parametrize("suite", SUITES)
@given(message=st.binary(max_size=300), counter=st.integers(0, 2**32 - 1))
def test_a_message_opens_as_it_was_and_takes_exactly_20_bytes_more(suite, message, counter):
    sender, receiver = pair(suite)
    sealed = sender.seal(message, counter)
    assert len(sealed) == len(message) + SEAL_OVERHEAD_BYTES == len(message) + 20
    assert sealed == pair(suite)[0].seal(message, counter), "the same bytes every time"
    assert len(message) < 8 or message not in sealed
    assert receiver.open(sealed) == message


@pytest.mark.parametrize("suite", SUITES)
@given(message=st.binary(max_size=100), counter=st.integers(0, 2**32 - 1), bit=st.integers(min_value=0))
def test_any_flipped_bit_is_refused(suite, message, counter, bit):
    sender, receiver = pair(suite)
    sealed = bytearray(sender.seal(message, counter))
    sealed[bit // 8 % len(sealed)] ^= 1 << bit % 8
    with pytest.raises(SealError):
        receiver.open(bytes(sealed))


@pytest.mark.parametrize("suite", SUITES)
def test_a_message_cut_short_or_lengthened_is_refused(suite):
    sealed = pair(suite)[0].seal(b"hidden states", 1)
    for wrong in (*(sealed[:length] for length in range(len(sealed))), sealed + b"\0"):
        with pytest.raises(SealError):
            pair(suite)[1].open(wrong)


@pytest.mark.parametrize("suite", SUITES)
def test_a_message_opens_once_and_none_after_a_later_one(suite):
    sender, receiver = pair(suite)
    first, second, third = (sender.seal(bytes([counter]), counter) for counter in (1, 2, 9))
    assert receiver.open(first) == b"\x01"
    with pytest.raises(SealError, match="repeated"):
        receiver.open(first)
    assert receiver.open(third) == b"\x09", "a gap is no offence: what was lost is lost"
    with pytest.raises(SealError, match="out of order"):
        receiver.open(second)


@pytest.mark.parametrize("suite", SUITES)
def test_a_refused_message_does_not_stop_the_next(suite):
    """Else whoever can send anything could shut a session out with one high counter."""
    sender, receiver = pair(suite)
    with pytest.raises(SealError):
        receiver.open(b"\xff" * 40)
    assert receiver.open(sender.seal(b"good", 0)) == b"good"


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize(
    "changes",
    [{"session": 4}, {"split": 3}, {"way": Way.DOWN}, {"key": session_key(run_secret(8), 3)}],
    ids=["session", "split", "direction", "key"],
)
def test_what_is_for_others_does_not_open(suite, changes):
    sealed = pair(suite)[0].seal(b"hidden states", 1)
    with pytest.raises(SealError):
        end(suite, **changes).open(sealed)


def test_no_nonce_is_used_twice():
    sender = pair("aes-gcm")[0]
    sender.seal(b"one", 5)
    for counter in (5, 4, -1, 2**32):
        with pytest.raises(SealError, match="does not follow"):
            sender.seal(b"two", counter)


def test_a_missing_or_impossible_key_is_the_same_kind_of_error():
    with pytest.raises(SealError, match="no key"):
        session_key(b"", 1)
    with pytest.raises(SealError, match="32 bytes"):
        Seal("aes-gcm", b"short", session=1, split=1)
    assert issubclass(SealError, CodecError)
