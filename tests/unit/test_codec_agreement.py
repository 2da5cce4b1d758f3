"""What a session's two sides agree on: that both must hold the same, and what centring does with it."""

import pickle

import numpy as np
import pytest

from testbed.codecs.agreed import Agreed, agree, needs_agreement
from testbed.codecs.framing import CodecError, unpack_header
from testbed.codecs.named import make_codec, size_law
from tests.mutations import mutated, resealed

CENTRED = ["int8", "int4(entropy=rans)", "fp8", "tabq", "tabq(entropy=rans)", "ts(tau=1)", "ts-tabq(tau=2)"]
# Channels that stand off by a constant, which is what centring takes away.
OFFSETS = np.where(np.arange(96) % 7 == 0, 30, -0.5).astype(np.float32)


def centred(setting):
    name, _, inner = setting.rstrip(")").partition("(")
    return f"{name}({','.join(filter(None, ['centre=true', inner]))})"


def states(num_tokens=40, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((num_tokens, OFFSETS.size)) + OFFSETS).astype(np.float32)


@pytest.mark.parametrize("setting", CENTRED)
def test_centring_quantises_what_differs_from_the_means(setting):
    means = states(500, seed=9).mean(axis=0)
    plain, codec = make_codec(setting), make_codec(centred(setting), Agreed(means=means))
    rows = states()
    tau = unpack_header(codec.encode(rows)).tau
    expected = plain.decode(plain.encode(rows - means)) + means
    expected = np.where(np.abs(rows - means) >= tau, rows, expected)
    np.testing.assert_array_equal(codec.decode(codec.encode(rows)), expected, strict=True)


@pytest.mark.parametrize("setting", CENTRED)
def test_centring_costs_no_byte_and_needs_fewer_for_the_same_error(setting):
    agreed, rows = agree(centred(setting), states(500, seed=1)), states(64, seed=2)
    plain, codec = make_codec(setting), make_codec(centred(setting), agreed)
    if plain.is_fixed_size:
        assert len(codec.encode(rows)) == len(plain.encode(rows))

    def cost(made):
        """Bits a value, and a bit for each factor of two in the error."""
        message = made.encode(rows)
        return 8 * len(message) / rows.size + np.log2(np.linalg.norm(made.decode(message) - rows))

    assert cost(codec) < cost(plain) - 0.5


def test_what_is_split_off_is_what_differs_much_and_travels_as_it_was():
    agreed = Agreed(means=OFFSETS)
    codec = make_codec("ts-tabq(centre=true,tau=10)", agreed)
    rows = states()
    none_above = len(codec.encode(rows))
    rows[3, 0], rows[4, 1], rows[5, 2], rows[6, 7] = 0.1234567, -30, np.nan, np.inf
    rows.view(np.uint32)[7, 3] = 0xFFC12345
    places = ([3, 4, 5, 6, 7], [0, 1, 2, 7, 3])
    message = codec.encode(rows)
    decoded = codec.decode(message)
    np.testing.assert_array_equal(decoded.view(np.uint32)[places], rows.view(np.uint32)[places])
    assert len(message) > none_above
    assert len(make_codec("ts-tabq(tau=10)").encode(rows)) > len(message), "constant channels are not split off"


def test_threshold_zero_loses_nothing_when_centred():
    rows = np.random.default_rng(3).integers(0, 2**32, (3, 96), dtype=np.uint64).astype(np.uint32).view(np.float32)
    codec = make_codec("ts-tabq(centre=true,tau=0)", Agreed(means=OFFSETS))
    np.testing.assert_array_equal(codec.decode(codec.encode(rows)).view(np.uint32), rows.view(np.uint32))


def test_a_sparse_value_near_its_mean_is_refused():
    codec, digest = make_codec("ts(centre=true,tau=10)", Agreed(means=OFFSETS)), Agreed(means=OFFSETS).digest
    rows = OFFSETS[None].copy()
    rows[0, 0] = 256.0
    message = codec.encode(rows)
    at = message.index(np.float32(256).tobytes()[2:], 20)
    forged = message[:at] + np.float32(32).tobytes()[2:] + message[at + 2 :]
    with pytest.raises(CodecError, match="below the threshold"):
        codec.decode(resealed(forged, digest))


@pytest.mark.parametrize("setting", CENTRED)
def test_messages_of_another_agreement_are_refused(setting):
    rows, agreed = states(3), Agreed(means=OFFSETS)
    other = OFFSETS.copy()
    other[5] = np.nextafter(other[5], np.float32(9))
    message = make_codec(centred(setting), agreed).encode(rows)
    for receiver in (make_codec(centred(setting), Agreed(means=other)), make_codec(setting)):
        with pytest.raises(CodecError, match="agreed on something else"):
            receiver.decode(message)
    with pytest.raises(CodecError, match="agreed on something else"):
        make_codec(centred(setting), agreed).decode(make_codec(setting).encode(rows))


@pytest.mark.parametrize("setting", CENTRED)
def test_mutated_messages_of_a_session_with_an_agreement(setting):
    codec, digest = make_codec(centred(setting), Agreed(means=OFFSETS)), Agreed(means=OFFSETS).digest
    message, rng, decoded = codec.encode(states(4)), np.random.default_rng(7), 0
    for _ in range(300):
        try:
            assert codec.decode(mutated(message, rng, digest)).dtype == np.float32
            decoded += 1
        except CodecError:
            continue
    assert 0 < decoded < 300


def test_equal_agreements_have_equal_digests_and_travel_between_processes():
    agreed = Agreed(means=OFFSETS)
    copy = pickle.loads(pickle.dumps(agreed))
    assert copy.digest == agreed.digest == Agreed(means=OFFSETS.copy()).digest != 0
    assert Agreed().digest == 0
    assert Agreed(means=OFFSETS[:-1]).digest != agreed.digest


def test_what_is_agreed_on_is_the_finite_mean_of_each_channel():
    rows = np.array([[1, np.nan, np.inf], [2, np.nan, 5]], np.float32)
    assert agree("int8(centre=true)", rows).means.tolist() == [1.5, 0, 5]
    assert agree("int8", rows) is None
    with pytest.raises(CodecError, match="samples"):
        agree("int8(centre=true)", rows[:0])


def test_a_setting_that_needs_an_agreement_is_no_codec_without_one():
    assert needs_agreement("ts-tabq(centre=true)")
    assert not needs_agreement("ts-tabq")
    for agreed in (None, Agreed()):
        with pytest.raises(CodecError, match="ts-tabq has to agree on means first"):
            make_codec("ts-tabq(centre=true)", agreed)
    law = size_law("int8(centre=true)")
    assert law.nbytes(2, 96) == make_codec("int8").nbytes(2, 96)
    message = make_codec("int8(centre=true)", Agreed(means=OFFSETS)).encode(states(2))
    assert len(message) == law.nbytes(2, 96)
    with pytest.raises(CodecError, match="not agreed"):
        law.encode(states(2))


def test_states_of_another_hidden_size_are_refused():
    codec = make_codec("int8(centre=true)", Agreed(means=OFFSETS))
    with pytest.raises(CodecError, match="96 channels"):
        codec.encode(np.zeros((1, 95), np.float32))
    message = make_codec("int8(centre=true)", Agreed(means=OFFSETS[:95])).encode(np.zeros((1, 95), np.float32))
    with pytest.raises(CodecError, match="96 channels"):
        codec.decode(resealed(message, Agreed(means=OFFSETS).digest))


@pytest.mark.parametrize("means", [np.array([np.nan], np.float32), np.zeros((1, 1), np.float32), np.zeros(1)])
def test_means_that_are_none_are_refused(means):
    with pytest.raises(CodecError, match="means"):
        make_codec("int8(centre=true)", Agreed(means=means))


def test_an_agreement_that_is_not_needed_changes_nothing():
    rows = states(3)
    assert make_codec("int8", Agreed(means=OFFSETS)).encode(rows) == make_codec("int8").encode(rows)
