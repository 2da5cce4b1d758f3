"""Draws next tokens from logits exactly as transformers' generate() does, one seeded stream per session."""

from __future__ import annotations

import numpy as np
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from testbed.models.sampling_config import SamplingConfig


class Sampler:
    """One session's choice of tokens: a pure function of (config, seed, logits so far), on the CPU.

    The same tokens as ``torch.manual_seed(seed); model.generate(do_sample=True, ...)`` on a CPU model at batch 1.
    """

    def __init__(self, config: SamplingConfig, seed: int) -> None:
        self.config = config.checked()
        self._generator = torch.Generator(device="cpu").manual_seed(seed)
        self._warpers = _warpers(config)
        self._no_ids = torch.LongTensor(1, 0)  # the three warpers look at scores only

    def sample(self, logits: np.ndarray) -> int:
        """The next token id from the logits [V] of the last position; a draw advances this session's stream."""
        if self.config.greedy:
            return int(np.argmax(logits))
        scores = torch.FloatTensor(torch.from_numpy(np.array(logits, dtype=np.float32))[None, :])
        probabilities = torch.softmax(self._warpers(self._no_ids, scores), dim=-1)
        return int(torch.multinomial(probabilities, num_samples=1, generator=self._generator))


def _warpers(config: SamplingConfig) -> LogitsProcessorList:
    """The library's own warpers in generate()'s order; filters that are off are left out as generate() does."""
    warpers = LogitsProcessorList()
    if config.temperature != 1.0:
        warpers.append(TemperatureLogitsWarper(config.temperature))
    if config.top_k:
        warpers.append(TopKLogitsWarper(config.top_k))
    if config.top_p < 1.0:
        warpers.append(TopPLogitsWarper(config.top_p))
    return warpers
