"""The compiled kernels give the bits of the plain NumPy reference, whatever the shape and the values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.codecs.compiling import kernels, reference
from testbed.codecs.reference import TabqSetting

pytest.importorskip("numba", reason="needs numba: without it the reference is what runs")

COLUMNS = st.one_of(st.integers(1, 70), st.sampled_from([127, 128, 511, 512, 1000, 4096, 8191, 8192]))
SPECIALS = np.array(
    [0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-45, -1e-40, 1.2e-38, 3.4e38, -3.4e38, 1.0, -1.0, 2.0**-118],
    np.float32,
)
TAU_BITS = [0, 1, int(np.float32(0.7).view(np.uint32)), int(np.float32(3).view(np.uint32)), 0x7F800000]


@st.composite
def states(draw):
    """Rows of different kinds, with special values sprinkled in."""
    num_tokens, hidden_size = draw(st.integers(0, 5)), draw(COLUMNS)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = np.empty((num_tokens, hidden_size), np.float32)
    for row in range(num_tokens):
        kind = draw(st.sampled_from(["normal", "tiny", "huge", "zero", "equal", "bits", "heavy"]))
        normal = rng.standard_normal(hidden_size)
        rows[row] = {
            "normal": normal,
            "tiny": normal * 1e-38,
            "huge": np.clip(normal * 1e38, -3e38, 3e38),
            "zero": normal * 0,
            "equal": np.full(hidden_size, normal[0]),
            "bits": rng.integers(0, 2**32, hidden_size, dtype=np.uint64).astype(np.uint32).view(np.float32),
            "heavy": normal**7,
        }[kind]
        if draw(st.booleans()):
            rows[row, rng.integers(0, hidden_size, 3)] = rng.choice(SPECIALS, 3)
    return rows


tabq_settings = st.builds(
    lambda test, delta, widths: TabqSetting(test, float(delta * (60 if test == 1 else 1)), min(widths), max(widths)),
    st.sampled_from([0, 1, 2]),
    st.sampled_from([0.0, 0.01, 0.04, 0.1, 0.2, 0.35, 1.0, 5.0]),
    st.tuples(st.integers(2, 8), st.integers(2, 8)),
)


def same(ours, theirs):
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        if isinstance(other, np.ndarray):
            assert mine.dtype == other.dtype
            assert mine.shape == other.shape
            np.testing.assert_array_equal(mine.view(np.uint8).ravel(), other.view(np.uint8).ravel())
        else:
            assert mine == other


@settings(max_examples=120)
@given(rows=states(), tau_bits=st.sampled_from(TAU_BITS), setting=tabq_settings)
def test_tabq(rows, tau_bits, setting):
    hidden_size = rows.shape[1]
    packed = kernels().tabq_pack(rows, tau_bits, setting)
    same(packed, reference().tabq_pack(rows, tau_bits, setting))
    values = kernels().tabq_unpack(*packed[:3], hidden_size)
    same([values], [reference().tabq_unpack(*packed[:3], hidden_size)])
    coded = kernels().tabq_symbols(rows, tau_bits, setting)
    same(coded, reference().tabq_symbols(rows, tau_bits, setting))
    from_symbols = kernels().tabq_values(*coded[:4])
    same([from_symbols], [reference().tabq_values(*coded[:4])])
    np.testing.assert_array_equal(from_symbols, values)  # as numbers: a symbol has no sign of zero


@settings(max_examples=80)
@given(rows=states(), tau_bits=st.sampled_from(TAU_BITS))
def test_sparse_values(rows, tau_bits):
    bits = rows.view(np.uint32)
    found = kernels().gather(bits, tau_bits)
    same(found, reference().gather(bits, tau_bits))
    ours, theirs = np.zeros_like(bits), np.zeros_like(bits)
    assert kernels().scatter(ours, *found, tau_bits)
    assert reference().scatter(theirs, *found, tau_bits)
    same([ours], [theirs])
    above = (bits & np.uint32(0x7FFFFFFF)) >= tau_bits
    np.testing.assert_array_equal(ours, np.where(above, bits, 0))


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), count=st.integers(0, 200), width=st.integers(1, 16))
def test_bit_strings(seed, count, width):
    values = np.random.default_rng(seed).integers(0, 2**width, count).astype(np.uint32)
    packed = kernels().pack_bits(values, width)
    same([packed], [reference().pack_bits(values, width)])
    assert packed.size == -(-count * width // 8)
    same([kernels().unpack_bits(packed, width, count)], [values])
    same([reference().unpack_bits(packed, width, count)], [values])


COUNTS = st.one_of(st.integers(0, 40), st.sampled_from([1365, 4096, 5001]))


@settings(max_examples=50)
@given(
    seed=st.integers(0, 2**32),
    segments=st.lists(st.tuples(COUNTS, st.integers(0, 2)), min_size=1, max_size=4),
    spread=st.sampled_from([0.01, 0.3, 2.0, 20.0, 200.0]),
)
def test_rans(seed, segments, spread):
    rng = np.random.default_rng(seed)
    counts, tables = np.array([count for count, _ in segments]), np.array([table for _, table in segments])
    symbols = np.clip(rng.standard_normal(counts.sum()) * spread + 100, 0, 255).astype(np.uint8)
    samples = [
        np.concatenate([symbols[np.repeat(tables, counts) == table], [7]]).astype(np.uint8) for table in range(3)
    ]
    frequencies = np.stack([kernels().rans_table(sample) for sample in samples])
    same([frequencies], [np.stack([reference().rans_table(sample) for sample in samples])])
    slots = kernels().rans_slots(frequencies)
    same([slots], [reference().rans_slots(frequencies)])
    stream = kernels().rans_encode(symbols, counts, tables, frequencies)
    same([stream], [reference().rans_encode(symbols, counts, tables, frequencies)])
    same([kernels().rans_decode(stream, counts, tables, slots)], [symbols])
    same([reference().rans_decode(stream, counts, tables, slots)], [symbols])
    for _ in range(4):
        broken = _broken(stream, rng)
        ours = kernels().rans_decode(broken, counts, tables, slots)
        theirs = reference().rans_decode(broken, counts, tables, slots)
        assert (ours is None) == (theirs is None)
        if ours is not None:  # nothing decodes but what is some symbols' own stream
            same([ours], [theirs])
            same([kernels().rans_encode(ours, counts, tables, frequencies)], [broken])


def _broken(stream, rng):
    kind, at = rng.integers(0, 5), int(rng.integers(0, stream.size))
    if kind == 0:
        return stream[: at // 4 * 4 if rng.random() < 0.5 else at]
    if kind == 1:
        return np.concatenate([stream, rng.integers(0, 256, rng.integers(1, 9))]).astype(np.uint8)
    if kind == 2:
        return np.delete(stream, slice(at, at + int(rng.choice([1, 4]))))
    broken = stream.copy()
    broken[at] = rng.integers(0, 256) if kind == 3 else 0
    return broken


@given(data=st.binary(max_size=70))
def test_crc32c(data):
    piece = np.frombuffer(data, np.uint8)
    assert kernels().crc32c(piece, 0) == reference().crc32c(piece, 0)
    half = len(data) // 2
    assert kernels().crc32c(piece[half:], kernels().crc32c(piece[:half], 0)) == kernels().crc32c(piece, 0)


def test_crc32c_is_castagnolis():
    # RFC 3720, B.4
    for data, crc in ((b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)):
        assert kernels().crc32c(np.frombuffer(data, np.uint8), 0) == crc
        assert reference().crc32c(np.frombuffer(data, np.uint8), 0) == crc
