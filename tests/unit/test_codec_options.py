"""Options of the quantisers, held against other libraries' definitions: uniform grids, TAB-Q's variants, rotation."""

import numpy as np
import pytest
import torch
from scipy.linalg import block_diag, hadamard

from testbed.codecs.compiling import kernels
from testbed.codecs.framing import CodecError, unpack_header
from testbed.codecs.named import make_codec
from testbed.codecs.reference import INT_L2, INT_MEAN, INT_REL, TabqSetting
from testbed.codecs.rotation import Rotation

INFINITY = 0x7F800000


def gaussian(num_tokens, hidden_size, seed=0):
    return np.random.default_rng(seed).standard_normal((num_tokens, hidden_size)).astype(np.float32)


def decoded(setting, rows):
    return make_codec(setting).decode(make_codec(setting).encode(rows))


def relative_error(setting, rows):
    return np.linalg.norm(decoded(setting, rows) - rows) / np.linalg.norm(rows)


@pytest.mark.parametrize("bits", range(2, 9))
def test_symmetric_codes_are_torch_fake_quantisation(bits):
    rows, top = gaussian(5, 65), 2 ** (bits - 1) - 1
    scale = torch.from_numpy(np.abs(rows).max(1)) / top
    zero = torch.zeros(5, dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(torch.from_numpy(rows), scale, zero, 0, -top, top)
    np.testing.assert_allclose(decoded(f"uniform(bits={bits})", rows), theirs.numpy(), rtol=1e-6)


@pytest.mark.parametrize("bits", range(2, 9))
def test_asymmetric_codes_are_torch_fake_quantisation(bits):
    rows, top = gaussian(6, 65) + np.array([[0], [0.5], [3], [-3], [9], [-9]], np.float32), 2**bits - 1
    low, high = np.minimum(rows.min(1), 0), np.maximum(rows.max(1), 0)
    scale = torch.from_numpy((high / top - low / top).astype(np.float32))
    zero = torch.from_numpy(np.clip(np.rint(-low / scale.numpy()), 0, top).astype(np.int32))
    theirs = torch.fake_quantize_per_channel_affine(torch.from_numpy(rows), scale, zero, 0, 0, top)
    ours = decoded(f"uniform(bits={bits},symmetric=false)", rows)
    # torch multiplies by the scale's inverse: a value half way between two codes may take the other one.
    assert (np.abs(ours - theirs.numpy()) > 1e-5 * np.abs(theirs.numpy())).mean() < 0.001


@pytest.mark.parametrize("setting", ["uniform(bits=3,symmetric=false)", "tabq(delta=0.3,symmetric=false)"])
def test_zero_stays_exactly_zero_between_unlike_limits(setting):
    rows = np.abs(gaussian(8, 50))
    rows[:, ::3] = 0
    rows[:, 1] = -0.2
    assert not decoded(setting, rows)[:, ::3].any()


@pytest.mark.parametrize(("bits", "name"), [(4, "int4"), (8, "int8")])
def test_int4_and_int8_are_uniform_grids(bits, name):
    rows = gaussian(3, 33)
    for more in ("", ",symmetric=false", ",rotate=hadamard"):
        settings = f"uniform(bits={bits}{more})", f"{name}({more[1:]})"
        assert make_codec(settings[0]).encode(rows) == make_codec(settings[1]).encode(rows)


def test_the_wire_of_int4_and_int8_is_twos_complement_the_first_value_lowest():
    rows = np.array([[-7, 1, 7, -1, 0]], np.float32)
    assert [unpack_header(make_codec(name).encode(rows)).stage for name in ("int8", "int4")] == [3, 4]
    assert make_codec("int4").encode(rows)[20:-4] == np.float32(1).tobytes() + bytes([0x19, 0xF7, 0x00])
    rows = np.array([[-127, 1, 127, -1, 0]], np.float32)
    assert make_codec("int8").encode(rows)[20:-4] == np.float32(1).tobytes() + bytes([0x81, 1, 127, 255, 0])


@pytest.mark.parametrize(
    ("setting", "per_token"), [("uniform(bits=3,symmetric=false)", 5), ("tabq(delta=0,symmetric=false)", 5.5)]
)
def test_a_zero_point_costs_a_byte_a_token(setting, per_token):
    rows = gaussian(64, 80)
    bits = 3 if "uniform" in setting else 8
    assert len(make_codec(setting).encode(rows)) == 24 + 64 * (per_token + 80 * bits / 8)


def test_asymmetric_grids_help_rows_of_one_sign():
    rows = np.abs(gaussian(16, 256))
    assert relative_error("int4(symmetric=false)", rows) < 0.6 * relative_error("int4", rows)
    sizes = [len(make_codec(f"tabq(delta=0.05{more})").encode(rows)) for more in ("", ",symmetric=false")]
    assert sizes[1] < sizes[0] - 64


@pytest.mark.parametrize("test", [INT_L2, INT_MEAN, INT_REL])
def test_asymmetric_widths_never_rise_with_the_tolerance_and_are_the_smallest_accepted(test):
    from testbed.codecs.reference_asymmetric import signed_codes, signed_narrowed

    rows = np.vstack(
        [gaussian(12, 200, seed=3), np.abs(gaussian(12, 200, seed=4)) ** 3, -(gaussian(6, 200) ** 2) + 0.3]
    )
    tolerances = [0, 0.01, 0.03, 0.1, 0.3, 1, 3, 9, 27, 100]
    found = np.array(
        [kernels().asymmetric_codes(rows, INFINITY, TabqSetting(test, float(d), 2, 8))[0] for d in tolerances]
    )
    assert (np.diff(found.astype(int), axis=0) <= 0).all()
    assert len(np.unique(found)) > 3
    for row in rows:
        _, zero, codes = signed_codes(row, 8)
        errors = [np.abs(codes - (signed_narrowed(codes, zero, b) << (8 - b))) for b in range(2, 9)]
        for power in (1, 2):
            assert (np.diff([(error**power).sum() for error in errors]) <= 0).all(), "a wider grid is never worse"


@pytest.mark.parametrize("width", [4, 5, 6, 7])
def test_requantised_rows_err_by_a_uniform_share_of_their_own_step(width):
    rows = gaussian(50, 4096, seed=5)
    step = np.abs(rows).max(axis=1) / (2**width - 1)
    error = decoded(f"tabq(delta=9,qmin={width},qmax={width},requantise=true)", rows) - rows
    np.testing.assert_allclose(np.sqrt((error**2).mean(axis=1)), step / np.sqrt(12), rtol=0.04)


def test_requantising_gains_nothing_on_gaussian_rows_since_the_centroid_has_it_already():
    rows = gaussian(50, 4096, seed=5)
    for width in range(2, 8):
        limits = f"delta=9,qmin={width},qmax={width}"
        assert relative_error(f"tabq({limits})", rows) < relative_error(f"tabq({limits},requantise=true)", rows)


def test_requantised_peaks_are_exact():
    rows = gaussian(20, 64)
    rows[:, 5] = 7
    values = decoded("tabq(delta=9,qmax=3,requantise=true)", rows)
    np.testing.assert_allclose(values[:, 5], 7, rtol=1e-6)
    assert (decoded("tabq(delta=9,qmax=3)", rows)[:, 5] < 6.3).all()


def test_full_width_needs_no_codes_of_its_own():
    rows = gaussian(4, 64)
    np.testing.assert_array_equal(decoded("tabq(delta=0)", rows), decoded("tabq(delta=0,requantise=true)", rows))


@pytest.mark.parametrize("hidden_size", [1, 2, 7, 64, 96, 640, 4096])
def test_the_rotation_is_scipys_hadamard_matrix(hidden_size):
    rows, sizes = gaussian(3, hidden_size), [1 << b for b in reversed(range(13)) if hidden_size >> b & 1]
    matrix = block_diag(*[hadamard(size) / np.sqrt(size) for size in sizes])
    rotated = Rotation().rotated(rows)
    np.testing.assert_allclose(rotated, rows @ matrix.T, atol=2e-5)
    np.testing.assert_allclose(Rotation().restored(rotated), rows, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(rotated, axis=1), np.linalg.norm(rows, axis=1), rtol=1e-5)


def test_random_signs_belong_to_a_key_and_are_undone():
    rows = np.ones((1, 512), np.float32)
    rotated = [Rotation(key).rotated(rows) for key in (1, 2, 1)]
    np.testing.assert_array_equal(rotated[0], rotated[2])
    assert (rotated[0] != rotated[1]).any()
    assert np.abs(rotated[0]).max() < 6, "without signs, equal values would all meet in one"
    np.testing.assert_allclose(Rotation(1).restored(rotated[0]), rows, atol=1e-6)


def test_rotating_rescues_a_grid_from_massive_values():
    rows = gaussian(32, 1024, seed=6)
    rows[:, [3, 700]] *= 100
    bulk = np.delete(np.arange(1024), [3, 700])

    def error(setting):
        return np.linalg.norm((decoded(setting, rows) - rows)[:, bulk]) / np.linalg.norm(rows[:, bulk])

    assert error("int4") > 0.9
    assert error("int4(rotate=hadamard)") < 0.6 * error("int4")
    assert error("ts(tau=8)") < error("int4(rotate=hadamard)")


def test_what_is_split_off_before_a_rotation_travels_as_it_was():
    rows = gaussian(3, 96)
    rows[0, 1], rows[1, 2], rows[2, 3] = np.nan, -np.inf, 12.3456789
    values = decoded("ts-tabq(rotate=hadamard,tau=5)", rows)
    places = ([0, 1, 2], [1, 2, 3])
    np.testing.assert_array_equal(values.view(np.uint32)[places], rows.view(np.uint32)[places])
    assert np.isfinite(np.delete(values.ravel(), [1, 98, 195])).all()


def test_values_too_large_to_add_up_are_refused():
    rows = np.full((1, 64), 3e38, np.float32)
    with pytest.raises(CodecError, match="too large to rotate"):
        make_codec("int8(rotate=hadamard)").encode(rows)
    with pytest.raises(CodecError, match="NaN"):
        make_codec("int8(rotate=hadamard)").encode(np.full((1, 64), np.inf, np.float32))


@pytest.mark.parametrize(
    ("setting", "at", "zero"),
    [("uniform(bits=3,symmetric=false)", 4, 8), ("tabq(delta=9,qmax=2,requantise=true,symmetric=false)", 5, 4)],
)
def test_a_zero_point_beyond_the_codes_is_refused(setting, at, zero):
    from tests.mutations import resealed

    codec = make_codec(setting)
    message = bytearray(codec.encode(gaussian(1, 16)))
    message[20 + at] = zero
    with pytest.raises(CodecError, match="zero point"):
        codec.decode(resealed(bytes(message)))
    message = bytearray(codec.encode(np.zeros((1, 16), np.float32)))
    message[20 + at] = 1
    with pytest.raises(CodecError, match="zero point"):
        codec.decode(resealed(bytes(message)))
