"""Codecs on a CUDA device: the host's message, byte for byte, and what that costs in time."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codec_states import states
from tests.tensor_messages import SETTINGS, codec_for, same_message

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


@pytest.mark.parametrize("setting", ["ts-tabq", "int8", "int4"])
def test_megabytes_per_second(setting: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Recorded, not judged: 512 x 4096 float32 on the device to a message on the host."""
    codec = codec_for(setting, 4096)
    rows = torch.randn(512, 4096, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    codec.encode_tensor(rows)
    taken_s = []
    for _ in range(9):
        start_s = time.perf_counter()
        codec.encode_tensor(rows)
        taken_s.append(time.perf_counter() - start_s)
    with capsys.disabled():
        sys.stdout.write(f"\ncuda {setting}: {rows.numel() * 4 / 1e6 / min(taken_s):.0f} MB/s")
