"""Codecs on a CUDA device: the host's message, byte for byte."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codec_states import states
from tests.tensor_messages import SETTINGS, same_message

pytestmark = pytest.mark.gpu


@settings(max_examples=300, deadline=None)
@given(rows=states(), setting=st.sampled_from(SETTINGS))
def test_tensors_on_the_device_give_the_hosts_bytes(rows: np.ndarray, setting: str) -> None:
    same_message(setting, rows, "cuda")


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_prefill_on_the_device_gives_the_hosts_bytes(setting: str) -> None:
    rows = np.random.default_rng(0).standard_normal((512, 4096)).astype(np.float32)
    rows[:, [5, 77]] *= 100
    rows[::7] **= 5
    same_message(setting, rows, "cuda")
