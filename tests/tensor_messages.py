"""One codec fed with a tensor and with an array, for the tests on the host and on a CUDA device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from testbed.codecs.agreed import Agreed
from testbed.codecs.framing import CodecError, F32Array
from testbed.codecs.named import make_codec
from testbed.codecs.pipeline import Pipeline

SETTINGS = [
    "int8",
    "int4(symmetric=false)",
    "uniform(bits=3)",
    "uniform(bits=7,entropy=rans,symmetric=false)",
    "ts(tau=1)",
    "ts(below=uniform,bits=5,symmetric=false,tau=2)",
    "tabq",
    "tabq(delta=0.3,requantise=true)",
    "tabq(delta=6,test=int_mean)",
    "tabq(delta=0.05,qmax=6,qmin=3,test=int_rel)",
    "ts-tabq(tau=1)",
    "ts-tabq(delta=0,tau=0)",
    "ts-tabq(delta=0.2,entropy=rans,tau=2)",
    "ts-tabq(entropy=zstd)",
    "ts-tabq(centre=true,delta=0.2,tau=1)",
    # These run on the host and must give the same all the same.
    "fp8",
    "raw-bfloat16",
    "ts-tabq(per_row=2)",
    "tabq(symmetric=false)",
    "int8(rotate=hadamard)",
]


def codec_for(setting: str, hidden_size: int) -> Pipeline:
    means_D = np.linspace(-2, 2, hidden_size).astype(np.float32)
    codec = make_codec(setting, Agreed(means=means_D))
    assert isinstance(codec, Pipeline)
    return codec


def same_message(setting: str, rows: F32Array, device: str) -> None:
    """Both ways give the same bytes, or both refuse for the same reason."""
    codec = codec_for(setting, rows.shape[1])
    assert _message(codec.encode, rows) == _message(codec.encode_tensor, torch.from_numpy(rows).to(device))


def _message(encode: Callable[[Any], bytes], rows: object) -> bytes | str:
    try:
        return encode(rows)
    except CodecError as error:
        return str(error)
