"""The shipped codecs keep the codec contract, and their bits are those of independent definitions."""

import numpy as np
import pytest
import torch

from testbed.codecs.framing import CodecError
from testbed.codecs.raw import RawBfloat16, RawFloat16, RawFloat32
from testbed.codecs.uniform import UniformInt4, UniformInt8
from testbed.testing.codec_contract import CodecContract


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


@pytest.mark.parametrize("codec", [UniformInt8(), UniformInt4()])
def test_uniform_refuses_what_it_cannot_represent(codec):
    with pytest.raises(CodecError, match="NaN"):
        codec.encode(np.array([[1.0, np.nan]], np.float32))


@pytest.mark.parametrize("codec", [UniformInt8(), UniformInt4()])
def test_a_hostile_scale_is_refused(codec):
    message = bytearray(codec.encode(np.ones((1, 4), np.float32)))
    message[8:12] = np.float32(np.nan).tobytes()
    with pytest.raises(CodecError, match="scale"):
        codec.decode(bytes(message))
