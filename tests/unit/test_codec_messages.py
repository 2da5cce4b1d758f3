"""The message at the cut: its overhead, its determinism, and what becomes of messages that nobody sent."""

import struct
import tracemalloc

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.codecs.entropy import RANS, ZSTD
from testbed.codecs.framing import CRC_BYTES, HEADER_BYTES, MAX_VALUES, CodecError, Envelope, unpack_header
from testbed.codecs.named import make_codec
from testbed.codecs.rotation import Rotation
from tests.mutations import mutated, resealed

SETTINGS = [
    "raw-float32",
    "raw-float16",
    "raw-bfloat16(entropy=zstd)",
    "int8",
    "int4(entropy=rans)",
    "fp8(entropy=rans)",
    "ts(tau=1)",
    "ts(below=int8,entropy=zstd,tau=1)",
    "tabq(delta=0.2)",
    "tabq(delta=0,entropy=rans)",
    "ts-tabq(tau=2)",
    "ts-tabq(per_row=2)",
    "ts-tabq(delta=0.2,entropy=rans,tau=2)",
    "ts-tabq(delta=0.2,entropy=zstd,tau=2)",
    "uniform(bits=3)",
    "uniform(bits=5,entropy=rans,symmetric=false)",
    "int8(rotate=hadamard,signs=1,symmetric=false)",
    "ts(below=uniform,bits=6,rotate=hadamard,tau=1)",
    "tabq(delta=0.2,symmetric=false)",
    "ts-tabq(delta=0.2,entropy=rans,requantise=true,symmetric=false,tau=2)",
    "ts-tabq(delta=0.2,requantise=true,rotate=hadamard,tau=2)",
]


OPTIONS = ["uniform(bits=3)", "tabq(delta=0.2,symmetric=false)", "ts-tabq(requantise=true,rotate=hadamard,tau=2)"]


def crc_start(setting):
    """Where the checksum starts of a codec whose rotation has random signs."""
    return Rotation(1).crc_start(0) if "signs=1" in setting else 0


def states(num_tokens, hidden_size, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((num_tokens, hidden_size)) * rng.choice([0.1, 1, 3], (num_tokens, 1))
    rows[:, hidden_size // 2 :] **= rng.choice([1, 3], (num_tokens, 1))
    return rows.astype(np.float32)


def messages(setting):
    codec = make_codec(setting)
    return codec, [
        codec.encode(rows)
        for rows in (states(1, 700), states(5, 96), states(4, 13), np.zeros((2, 9), np.float32), states(0, 4))
    ]


def decodes_or_refuses(codec, message):
    """A tensor of the shape the header says, or the typed error, and nothing else."""
    try:
        decoded = codec.decode(message)
    except CodecError:
        return False
    header = unpack_header(message)
    assert decoded.shape == (header.num_tokens, header.hidden_size)
    assert decoded.dtype == np.float32
    return True


def attack(setting, count, seed):
    codec, originals = messages(setting)
    rng = np.random.default_rng(seed)
    start = crc_start(setting)
    return sum(decodes_or_refuses(codec, mutated(originals[i % len(originals)], rng, start)) for i in range(count))


@pytest.mark.parametrize("setting", SETTINGS)
def test_mutated_messages_give_a_tensor_or_the_typed_error(setting):
    assert 0 < attack(setting, 360, seed=1) < 360, "some changes leave a message that could have been sent"


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_very_many_mutated_messages_give_a_tensor_or_the_typed_error(setting):
    assert 0 < attack(setting, 4900, seed=2) < 4900, "over 100,000 in all, and some still are messages"


@settings(max_examples=200)
@given(
    setting=st.sampled_from(SETTINGS),
    body=st.binary(max_size=90),
    shape=st.tuples(st.integers(0, 9), st.integers(0, 40)),
)
def test_any_body_behind_a_valid_header_gives_a_tensor_or_the_typed_error(setting, body, shape):
    codec = make_codec(setting)
    header = codec.encode(states(*shape) if min(shape) else np.zeros(shape, np.float32))[:HEADER_BYTES]
    decodes_or_refuses(codec, resealed(header + body + bytes(CRC_BYTES), crc_start(setting)))


@given(setting=st.sampled_from(SETTINGS), data=st.binary(max_size=60))
def test_any_bytes_give_the_typed_error(setting, data):
    with pytest.raises(CodecError):
        make_codec(setting).decode(data)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_claimed_shape_allocates_nothing_before_it_is_believed(setting):
    codec = make_codec(setting)
    message = bytearray(codec.encode(states(1, 64)))
    struct.pack_into("<H", message, 4, 4096)
    struct.pack_into("<I", message, 6, MAX_VALUES // 4096)
    hostile = resealed(bytes(message), crc_start(setting))
    codec.decode(codec.encode(states(1, 64)))  # kernels are loaded
    tracemalloc.start()
    with pytest.raises(CodecError):
        codec.decode(hostile)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    struct.pack_into("<I", message, 6, MAX_VALUES // 4096 + 1)
    with pytest.raises(CodecError, match="more than"):
        codec.decode(resealed(bytes(message), crc_start(setting)))


@pytest.mark.parametrize("setting", SETTINGS)
def test_bytes_are_deterministic_and_truncation_is_noticed(setting):
    codec, originals = messages(setting)
    assert originals == messages(setting)[1]
    for original in originals:
        for end in range(0, len(original), 7):
            with pytest.raises(CodecError):
                codec.decode(original[:end])
            if end < HEADER_BYTES + CRC_BYTES:
                continue
            if unpack_header(original).entropy == RANS:  # bytes cut short may be those of other symbols
                decodes_or_refuses(codec, resealed(original[:end]))
                continue
            with pytest.raises(CodecError):
                codec.decode(resealed(original[:end], crc_start(setting)))


@pytest.mark.parametrize("num_tokens", [1, 2, 7, 512])
def test_overhead_is_at_most_24_bytes_and_5_a_token(num_tokens):
    rows = states(num_tokens, 64)
    message = make_codec("ts-tabq(delta=0,qmin=8)").encode(np.clip(rows, -9, 9))
    assert len(message) - num_tokens * 9 * 8 <= 24 + 5 * num_tokens


def test_the_envelope_travels():
    envelope = Envelope(session=2**32 - 1, position=2**24 - 1, split=255)
    message = make_codec("ts-tabq").encode(states(3, 50), envelope)
    header = unpack_header(message)
    assert header.envelope == envelope
    assert (header.num_tokens, header.hidden_size, header.tau) == (3, 50, 10.0)
    for beyond in (Envelope(2**32, 0, 0), Envelope(0, 2**24, 0), Envelope(0, 0, 256), Envelope(-1, 0, 0)):
        with pytest.raises(CodecError, match="no room"):
            make_codec("int8").encode(states(1, 4), beyond)


@pytest.mark.parametrize(
    ("sender", "receiver"),
    [
        ("int8", "fp8"),
        ("ts(tau=1)", "int4"),
        ("int8(entropy=zstd)", "int8"),
        ("uniform(bits=3)", "uniform(bits=5)"),
        ("int4", "int4(symmetric=false)"),
        ("tabq(requantise=true)", "tabq"),
        ("tabq", "tabq(symmetric=false)"),
        ("int8(rotate=hadamard)", "int8"),
        ("int8", "int8(rotate=hadamard)"),
        ("int8(rotate=hadamard,signs=1)", "int8(rotate=hadamard,signs=2)"),
    ],
)
def test_a_codec_that_was_not_agreed_on_is_refused(sender, receiver):
    with pytest.raises(CodecError, match="agree"):
        make_codec(receiver).decode(make_codec(sender).encode(np.ones((4, 400), np.float32) * 2))


def test_sparse_values_that_fit_bfloat16_take_half_the_room():
    rows = np.zeros((1, 4096), np.float32)
    rows[0, :10] = 400
    short = make_codec("ts-tabq").encode(rows)
    rows[0, 0] = 400.001
    assert len(make_codec("ts-tabq").encode(rows)) == len(short) + 2 * 10
    np.testing.assert_array_equal(make_codec("ts-tabq").decode(make_codec("ts-tabq").encode(rows)), rows)


@pytest.mark.parametrize("hidden_size", [1, 2, 9, 64, 1000])
def test_threshold_zero_loses_nothing(hidden_size):
    rows = np.random.default_rng(3).integers(0, 2**32, (3, hidden_size), dtype=np.uint64).astype(np.uint32)
    decoded = make_codec("ts-tabq(tau=0)").decode(make_codec("ts-tabq(tau=0)").encode(rows.view(np.float32)))
    np.testing.assert_array_equal(decoded.view(np.uint32), rows)


def test_a_threshold_by_rank_splits_off_as_many_values_as_it_says():
    rows = np.random.default_rng(4).standard_normal((64, 512)).astype(np.float32)
    for setting, count in (("ts-tabq(per_row=2)", 128), ("ts(quantile=0.99)", 328)):
        tau = unpack_header(make_codec(setting).encode(rows)).tau
        assert abs(int((np.abs(rows) >= tau).sum()) - count) <= 1


@pytest.mark.parametrize(
    "setting", ["tabq(delta=0.2)", "ts-tabq(tau=2)", "int4", "raw-float32", "fp8", "ts(tau=1)", *OPTIONS]
)
@pytest.mark.parametrize("shape", [(1, 40), (3, 333), (64, 512)])
def test_entropy_coding_changes_no_value_and_never_expands(setting, shape):
    rows = states(*shape, seed=5)
    plain = make_codec(setting)
    message = plain.encode(rows)
    name, _, inner = setting.rstrip(")").partition("(")
    for entropy in ("rans", "zstd"):
        codec = make_codec(f"{name}({','.join(filter(None, [inner, f'entropy={entropy}']))})")
        coded = codec.encode(rows)
        assert len(coded) <= len(message)
        np.testing.assert_array_equal(codec.decode(coded), plain.decode(message))
        if shape[0] == 64 and "tabq" in setting:
            assert unpack_header(coded).entropy == {"rans": RANS, "zstd": ZSTD}[entropy]


def test_rans_takes_what_constriction_takes():
    constriction = pytest.importorskip("constriction", reason="the oracle for rANS sizes is a development extra")
    rows = np.random.default_rng(6).standard_normal((64, 4096)).astype(np.float32)
    codec = make_codec("tabq(delta=0.1,entropy=rans)")
    coded = codec.encode(rows)
    header = len(make_codec("tabq(delta=0.1)").encode(rows[:0])) + 64 * 4.5
    from testbed.codecs.compiling import kernels
    from testbed.codecs.reference import TabqSetting

    widths, _, symbols, planes, _ = kernels().tabq_symbols(rows, 0x7F800000, TabqSetting(0, 0.1, 2, 8))
    oracle = 0
    for width in np.unique(widths):
        stream = symbols[widths == width].ravel().astype(np.int32)
        share = np.bincount(stream, minlength=2 ** (width + 1) - 1).astype(np.float64) + 1e-9
        model = constriction.stream.model.Categorical(share / share.sum(), perfect=False)
        coder = constriction.stream.stack.AnsCoder()
        coder.encode_reverse(stream, model)
        oracle += 4 * len(coder.get_compressed()) + 1.5 * 2 ** (width + 1)
    assert len(coded) - header - planes.size == pytest.approx(oracle, rel=0.003)


@pytest.mark.parametrize("width", [1, 9, 15])
def test_a_width_that_no_encoder_chooses_is_refused_whatever_follows(width):
    codec = make_codec("tabq(delta=0.2)")
    message = codec.encode(states(1, 64))
    scale = message[HEADER_BYTES + 1 : HEADER_BYTES + 5]
    forged = message[:HEADER_BYTES] + bytes([width]) + scale + bytes(8 * (width + 1)) + bytes(CRC_BYTES)
    with pytest.raises(CodecError, match="width"):
        codec.decode(resealed(forged))


def test_a_nibble_beyond_the_last_width_is_empty():
    codec = make_codec("tabq(delta=0.2)")
    message = bytearray(codec.encode(states(3, 64)))
    message[HEADER_BYTES + 1] |= 0x20
    with pytest.raises(CodecError, match="width"):
        codec.decode(resealed(bytes(message)))


def test_columns_that_do_not_rise_are_refused():
    codec = make_codec("ts-tabq(tau=1)")
    rows = np.zeros((1, 256), np.float32)
    rows[0, [3, 7]] = 2
    message = codec.encode(rows)
    columns = message.index(bytes([3, 7]))  # 9 bits of count fill two bytes; 256 columns take one byte each
    for pair in ([7, 3], [3, 3]):
        forged = message[:columns] + bytes(pair) + message[columns + 2 :]
        with pytest.raises(CodecError, match="rise"):
            codec.decode(resealed(forged))


def test_a_compression_bomb_is_not_unpacked():
    codec = make_codec("int8(entropy=zstd)")
    message = codec.encode(np.ones((1, 4096), np.float32))
    assert unpack_header(message).entropy == ZSTD
    bomb = zstandard.ZstdCompressor().compress(bytes(2**26))
    hostile = resealed(message[: HEADER_BYTES + 4] + bomb + bytes(CRC_BYTES))
    tracemalloc.start()
    with pytest.raises(CodecError, match="compressed"):
        codec.decode(hostile)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
