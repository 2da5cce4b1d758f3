"""Builds the split model that a row of the comparison describes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from testbed.actors.calls import HostSpec
from testbed.actors.host_shards import HostShards
from testbed.actors.weight_plan import calibration_sequences, weight_config
from testbed.codecs.agreed import Agreed, agree, needs_agreement
from testbed.codecs.named import make_codec
from testbed.codecs.sparse import Threshold
from testbed.core.errors import ModelError
from testbed.models.sampling_config import SamplingConfig
from testbed.models.source import ModelSource
from testbed.models.tokenizer import Tokenizer
from testbed.scenarios.kv import KV
from testbed.scenarios.weights import Weights
from testbed.studies.evaluation.split_model import F32Array, SplitModel

TAU = "{tau}"  # in a codec's setting: to be calibrated
MASSIVE = 6.0
ABOVE_PER_ROW = 2.0
OFF = 3e38  # nothing finite is as large


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A model and where it is cut; `dtype` is what the shards compute in and what is not quantised is stored in."""

    source: ModelSource
    tokenizer: Tokenizer
    split: int
    dtype: str = "float32"
    device: str = "cpu"

    def check(self) -> None:
        """Raise ModelError unless both sides have layers."""
        last = self.source.shape.num_layers - 1
        if not 1 <= self.split <= last:
            raise ModelError("nothing crosses this cut", path="split", value=self.split, allowed=f"1 to {last}")


def load_split(
    cut: Cut, weights: Weights | None, codec: str, texts: Sequence[str], *, kv: KV | None = None
) -> SplitModel:
    """Front and back as a run's hosts have them, joined by a codec that is calibrated on `texts` where need be.

    Raises ScenarioError for settings that don't fit the model.
    """
    own = weights.calibration if weights is not None and weights.needs_text else ()
    is_read = bool(own) or TAU in codec or needs_agreement(codec)
    spec = HostSpec(
        source=cut.source,
        dtype=cut.dtype,
        sampling=SamplingConfig(),
        keep_logits=False,
        weights=None if weights is None else weight_config(weights),
        calibration=_sequences(cut, own or texts) if is_read else (),
        saved=None if weights is None or weights.saved is None else Path(weights.saved),
        front_kv_bits=None if kv is None else kv.front_bits,
        back_kv_bits=None if kv is None else kv.back_bits,
    )
    shards = HostShards(spec, cut.device)
    codec, agreed = _calibrated(codec, lambda: np.concatenate(shards.calibration_states(cut.split)))
    return SplitModel(shards.front(cut.split), shards.back(cut.split), make_codec(codec, agreed), codec)


def _calibrated(codec: str, sample: Callable[[], F32Array]) -> tuple[str, Agreed | None]:
    """The codec's setting with its threshold, and what its sessions agree on, from hidden states at the cut."""
    if TAU not in codec and not needs_agreement(codec):
        return codec, None
    hidden_ND = sample()
    codec = codec.replace(TAU, repr(session_tau(hidden_ND)))
    return codec, agree(codec, hidden_ND)


def session_tau(hidden_ND: F32Array) -> float:
    """A threshold for all messages of a session, from samples [our own design].

    OFF where no row has a value above MASSIVE times its root mean square: splitting off would only cost. Else such
    that ABOVE_PER_ROW values of a row lie above on average.
    """
    rms_N = np.sqrt(np.mean(hidden_ND.astype(np.float64) ** 2, axis=1))
    if not (np.abs(hidden_ND).max(axis=1) > MASSIVE * rms_N).any():
        return OFF
    return float(Threshold(per_row=ABOVE_PER_ROW).of(hidden_ND))


def _sequences(cut: Cut, texts: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    return calibration_sequences([cut.tokenizer.encode(text) for text in texts], cut.source.shape.max_positions)
