"""The compiled kernels give the bits of the plain NumPy reference, whatever the shape and the values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.codecs.compiling import kernels, reference
from tests.codec_states import TAU_BITS, states, tabq_settings

pytest.importorskip("numba", reason="needs numba: without it the reference is what runs")


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
    values = kernels().tabq_unpack(*packed[:3], hidden_size, setting.requantise)
    same([values], [reference().tabq_unpack(*packed[:3], hidden_size, setting.requantise)])
    coded = kernels().tabq_symbols(rows, tau_bits, setting)
    same(coded, reference().tabq_symbols(rows, tau_bits, setting))
    from_symbols = kernels().tabq_values(*coded[:4], setting.requantise)
    same([from_symbols], [reference().tabq_values(*coded[:4], setting.requantise)])
    np.testing.assert_array_equal(from_symbols, values)  # as numbers: a symbol has no sign of zero


@settings(max_examples=80)
@given(rows=states(), tau_bits=st.sampled_from(TAU_BITS), setting=tabq_settings)
def test_asymmetric_tabq(rows, tau_bits, setting):
    coded = kernels().asymmetric_codes(rows, tau_bits, setting)
    same(coded, reference().asymmetric_codes(rows, tau_bits, setting))
    values = kernels().asymmetric_values(*coded[:4], setting.requantise)
    same([values], [reference().asymmetric_values(*coded[:4], setting.requantise)])
    widths, codes = coded[0], coded[3]
    packed = kernels().pack_rows(codes, widths)
    same([packed], [reference().pack_rows(codes, widths)])
    same([kernels().unpack_rows(packed, widths, rows.shape[1])], [codes])
    same([reference().unpack_rows(packed, widths, rows.shape[1])], [codes])


@settings(max_examples=80)
@given(rows=states(), tau_bits=st.sampled_from(TAU_BITS), bits=st.integers(2, 8), symmetric=st.booleans())
def test_uniform_grids_and_floats(rows, tau_bits, bits, symmetric):
    coded = kernels().uniform_codes(rows, tau_bits, bits, symmetric)
    same(coded, reference().uniform_codes(rows, tau_bits, bits, symmetric))
    values = kernels().uniform_values(*coded[:3], bits, symmetric)
    same([values], [reference().uniform_values(*coded[:3], bits, symmetric)])
    floats = kernels().fp8_codes(rows, tau_bits)
    same(floats, reference().fp8_codes(rows, tau_bits))
    same([kernels().fp8_values(*floats[:2])], [reference().fp8_values(*floats[:2])])


@settings(max_examples=60)
@given(rows=states())
def test_rotation(rows):
    rows = np.where(np.isfinite(rows), rows, np.float32(0))  # a NaN's payload is the processor's choice
    with np.errstate(over="ignore", invalid="ignore"):
        rotated, expected = kernels().hadamard(rows), reference().hadamard(rows)
    np.testing.assert_array_equal(rotated, expected, strict=True)


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


@settings(max_examples=80)
@given(rows=states(), quantile=st.one_of(st.sampled_from([0.0, 0.5, 0.99, 1.0]), st.floats(0, 1)))
def test_ranked_magnitudes(rows, quantile):
    found = kernels().ranked_magnitude(rows.view(np.uint32), quantile)
    assert found == reference().ranked_magnitude(rows.view(np.uint32), quantile)
    magnitudes = np.sort(np.abs(rows[np.isfinite(rows)]))
    rank = int(np.ceil(quantile * magnitudes.size))
    expected = magnitudes[rank] if rank < magnitudes.size else np.float32(np.inf)
    assert np.uint32(found).view(np.float32) == expected


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
