"""Messages made of tensors are those made of arrays, byte for byte, whatever the shape and the values."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.codecs.agreed import Agreed
from testbed.codecs.framing import CodecError, Envelope
from testbed.codecs.named import make_codec
from tests.codec_states import states
from tests.tensor_messages import SETTINGS, codec_for, same_message


@settings(max_examples=150)
@given(rows=states(), setting=st.sampled_from(SETTINGS))
def test_tensors_on_the_host_give_the_same_bytes(rows, setting):
    same_message(setting, rows, "cpu")


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_on_rows_that_use_every_width(setting):
    rng = np.random.default_rng(0)
    rows = np.vstack([rng.standard_normal((4, 200)) ** power for power in (1, 3, 5, 9)]).astype(np.float32)
    same_message(setting, rows, "cpu")
    same_message(setting, rows[:, :193], "cpu")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_taken_as_float32(dtype):
    rows = torch.randn(3, 40, generator=torch.Generator().manual_seed(0)).to(dtype)
    codec, envelope = make_codec("ts-tabq(tau=2)"), Envelope(3, 2, 1)
    assert codec.encode_tensor(rows, envelope) == codec.encode(rows.float().numpy(), envelope)


def test_tensors_that_are_no_hidden_states_are_refused():
    codec = make_codec("int8")
    for wrong in (torch.zeros(3, 4, dtype=torch.int32), torch.zeros(3), torch.zeros(1, 70_000)):
        with pytest.raises(CodecError):
            codec.encode_tensor(wrong)
    with pytest.raises(CodecError, match="NaN"):
        codec.encode_tensor(torch.tensor([[1.0, torch.nan]]))
    with pytest.raises(CodecError, match="channels"):
        make_codec("int8(centre=true)", Agreed(means=np.zeros(3, np.float32))).encode_tensor(torch.zeros(1, 4))


def test_a_column_slice_of_a_larger_tensor_is_taken_as_it_is():
    rows = torch.randn(6, 80, generator=torch.Generator().manual_seed(1))[::2, 10:50]
    codec = codec_for("ts-tabq(tau=1)", 40)
    assert codec.encode_tensor(rows) == codec.encode(rows.contiguous().numpy())
