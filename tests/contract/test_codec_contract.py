"""The shipped codecs keep the codec contract, and their bits are those of independent definitions."""

import numpy as np
import pytest
import torch

from testbed.codecs.framing import HEADER_BYTES, CodecError
from testbed.codecs.named import Fp8, RawBfloat16, RawFloat16, RawFloat32, UniformInt4, UniformInt8, make_codec
from testbed.testing.codec_contract import CodecContract
from tests.mutations import resealed


class TestRawFloat32(CodecContract):
    make = staticmethod(RawFloat32)

    def test_bits_survive(self):
        special = np.array([[0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 3.4e38]], np.float32)
        decoded = RawFloat32().decode(RawFloat32().encode(special))
        np.testing.assert_array_equal(decoded.view(np.uint32), special.view(np.uint32))


class TestRawFloat16(CodecContract):
    make = staticmethod(RawFloat16)
    relative_error = 2.0**-11


class TestRawBfloat16(CodecContract):
    make = staticmethod(RawBfloat16)
    relative_error = 2.0**-8

    def test_rounds_as_torch_does(self):
        bits = np.random.default_rng(1).integers(0, 2**32, 20_000, dtype=np.uint64).astype(np.uint32)
        values = bits.view(np.float32)[None]
        ours = RawBfloat16().decode(RawBfloat16().encode(values))
        theirs = torch.from_numpy(values.copy()).to(torch.bfloat16).float().numpy()
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
        finite = ~np.isnan(ours)
        np.testing.assert_array_equal(ours[finite].view(np.uint32), theirs[finite].view(np.uint32))


class TestUniformInt8(CodecContract):
    make = staticmethod(UniformInt8)
    relative_error = 0.5001 / 127

    def test_codes_are_torch_fake_quantisation(self):
        states = self.states(5, 64)
        scale = torch.from_numpy(np.abs(states).max(1)) / 127
        zero = torch.zeros(5, dtype=torch.int32)
        theirs = torch.fake_quantize_per_channel_affine(torch.from_numpy(states), scale, zero, 0, -127, 127)
        np.testing.assert_allclose(UniformInt8().decode(UniformInt8().encode(states)), theirs.numpy(), rtol=1e-6)


class TestUniformInt4(CodecContract):
    make = staticmethod(UniformInt4)
    relative_error = 0.5001 / 7

    def test_both_nibbles_keep_their_sign(self):
        states = np.arange(-7, 8, dtype=np.float32)[None]
        np.testing.assert_array_equal(UniformInt4().decode(UniformInt4().encode(states)), states)


class TestFp8(CodecContract):
    make = staticmethod(Fp8)
    relative_error = 2.0**-4

    def test_rounds_as_torch_does(self):
        values = np.random.default_rng(2).standard_normal(20_000).astype(np.float32)
        values *= np.float32(10.0) ** np.random.default_rng(3).integers(-4, 3, 20_000).astype(np.float32)
        values = np.clip(values, -448, 448)
        grid = np.arange(128, dtype=np.uint8)
        exact = torch.from_numpy(grid).view(torch.float8_e4m3fn).float().numpy()[:127]
        values = np.concatenate([values, exact, -exact, (exact[1:] + exact[:-1]) / 2, [448.0]]).astype(np.float32)
        theirs = torch.from_numpy(values.copy()).to(torch.float8_e4m3fn).float().numpy()
        ours = Fp8().decode(Fp8().encode(values[None]))[0]
        np.testing.assert_array_equal(ours, theirs)


class TestTs(CodecContract):
    make = staticmethod(lambda: make_codec("ts(tau=1)"))
    relative_error = 0.5001 / 7


class TestTabq(CodecContract):
    make = staticmethod(lambda: make_codec("tabq(delta=0)"))
    relative_error = 0.5001 / 255


class TestTsTabq(CodecContract):
    make = staticmethod(lambda: make_codec("ts-tabq(delta=0,tau=1)"))
    relative_error = 0.5001 / 255


class TestTsTabqRans(CodecContract):
    make = staticmethod(lambda: make_codec("ts-tabq(delta=0.05,entropy=rans)"))
    relative_error = 0.15


class TestTsTabqZstd(CodecContract):
    make = staticmethod(lambda: make_codec("ts-tabq(delta=0.05,entropy=zstd)"))
    relative_error = 0.15


class TestInt4Rans(CodecContract):
    make = staticmethod(lambda: make_codec("int4(entropy=rans)"))
    relative_error = 0.5001 / 7


class TestUniform3(CodecContract):
    make = staticmethod(lambda: make_codec("uniform(bits=3)"))
    relative_error = 0.5001 / 3


class TestUniform5AsymmetricRans(CodecContract):
    make = staticmethod(lambda: make_codec("uniform(bits=5,entropy=rans,symmetric=false)"))
    relative_error = 0.5001 * 2 / 31


class TestTsUniform6(CodecContract):
    make = staticmethod(lambda: make_codec("ts(below=uniform,bits=6,symmetric=false,tau=1)"))
    relative_error = 0.5001 * 2 / 63


class TestAsymmetricTsTabq(CodecContract):
    make = staticmethod(lambda: make_codec("ts-tabq(delta=0,symmetric=false,tau=1)"))
    relative_error = 0.5001 * 2 / 255


class TestAsymmetricTabqRans(CodecContract):
    make = staticmethod(lambda: make_codec("tabq(delta=0.05,entropy=rans,requantise=true,symmetric=false)"))
    relative_error = 0.15


class TestRequantisedTabq(CodecContract):
    make = staticmethod(lambda: make_codec("tabq(delta=0.05,requantise=true)"))
    relative_error = 0.1


class TestRotatedInt8(CodecContract):
    """A value's error is that of its whole row, each at most half a step of a peak that may be sqrt(d) as large."""

    make = staticmethod(lambda: make_codec("int8(rotate=hadamard)"))
    relative_error = 0.05
    largest = 1e30


class TestRotatedTsTabq(CodecContract):
    make = staticmethod(lambda: make_codec("ts-tabq(delta=0.05,rotate=hadamard,signs=7,tau=1)"))
    relative_error = 0.15
    largest = 1e30


QUANTISERS = ["int8", "int4", "fp8", "tabq", "tabq(entropy=rans)", "uniform(bits=3,symmetric=false)"]
QUANTISERS += ["tabq(symmetric=false)", "tabq(requantise=true)", "int4(rotate=hadamard)"]


@pytest.mark.parametrize("setting", QUANTISERS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_quantisers_refuse_what_they_cannot_represent(setting, value):
    with pytest.raises(CodecError, match="NaN"):
        make_codec(setting).encode(np.array([[1.0, value]], np.float32))


@pytest.mark.parametrize("setting", ["ts", "ts(below=fp8)", "ts-tabq", "ts-tabq(entropy=rans)"])
def test_with_threshold_splitting_what_is_not_finite_travels_bit_for_bit(setting):
    states = np.random.default_rng(0).standard_normal((3, 40)).astype(np.float32)
    states[0, 3], states[1, 39], states[2, 0] = np.nan, np.inf, -np.inf
    states.view(np.uint32)[2, 20] = 0xFFC12345
    decoded = make_codec(setting).decode(make_codec(setting).encode(states))
    odd = ~np.isfinite(states)
    np.testing.assert_array_equal(decoded.view(np.uint32)[odd], states.view(np.uint32)[odd])
    assert np.isfinite(decoded[~odd]).all()


@pytest.mark.parametrize("setting", QUANTISERS)
@pytest.mark.parametrize("scale", [np.nan, np.inf, -1.0, -0.0])
def test_a_hostile_scale_is_refused(setting, scale):
    codec = make_codec(setting)
    message = codec.encode(np.ones((1, 4), np.float32))
    at = HEADER_BYTES + (1 if "tabq" in setting else 0)
    forged = message[:at] + np.float32(scale).tobytes() + message[at + 4 :]
    with pytest.raises(CodecError, match="scale"):
        codec.decode(resealed(forged))
