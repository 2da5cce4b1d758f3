"""Well-known models by name, as shapes only: enough for modelled device groups, no weights.

Every row holds the numbers of the published config.json of the Hugging Face repository named beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_KEYS = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
)


def _config(model_type: str, *sizes: int, **more: object) -> dict[str, Any]:
    """A config.json as far as the laws need it; ``sizes`` in the order of ``_KEYS``."""
    return {
        "model_type": model_type,
        "tie_word_embeddings": False,
        **dict(zip(_KEYS, sizes, strict=True)),
        **more,
    }


_TIED = {"tie_word_embeddings": True}

KNOWN_CONFIGS: Mapping[str, dict[str, Any]] = {
    # meta-llama/Llama-2-7b-hf, -13b-hf, -70b-hf
    "llama-2-7b": _config("llama", 32, 4096, 32, 32, 11008, 32000, 4096),
    "llama-2-13b": _config("llama", 40, 5120, 40, 40, 13824, 32000, 4096),
    "llama-2-70b": _config("llama", 80, 8192, 64, 8, 28672, 32000, 4096),
    # meta-llama/Meta-Llama-3-8B, -70B
    "llama-3-8b": _config("llama", 32, 4096, 32, 8, 14336, 128256, 8192),
    "llama-3-70b": _config("llama", 80, 8192, 64, 8, 28672, 128256, 8192),
    # meta-llama/Llama-3.1-8B, -70B
    "llama-3.1-8b": _config("llama", 32, 4096, 32, 8, 14336, 128256, 131072),
    "llama-3.1-70b": _config("llama", 80, 8192, 64, 8, 28672, 128256, 131072),
    # meta-llama/Llama-3.2-1B, -3B
    "llama-3.2-1b": _config("llama", 16, 2048, 32, 8, 8192, 128256, 131072, head_dim=64, **_TIED),
    "llama-3.2-3b": _config("llama", 28, 3072, 24, 8, 8192, 128256, 131072, head_dim=128, **_TIED),
    # Qwen/Qwen2.5-0.5B, -1.5B, -3B, -7B, -14B, -32B, -72B
    "qwen2.5-0.5b": _config("qwen2", 24, 896, 14, 2, 4864, 151936, 32768, **_TIED),
    "qwen2.5-1.5b": _config("qwen2", 28, 1536, 12, 2, 8960, 151936, 131072, **_TIED),
    "qwen2.5-3b": _config("qwen2", 36, 2048, 16, 2, 11008, 151936, 32768, **_TIED),
    "qwen2.5-7b": _config("qwen2", 28, 3584, 28, 4, 18944, 152064, 131072),
    "qwen2.5-14b": _config("qwen2", 48, 5120, 40, 8, 13824, 152064, 131072),
    "qwen2.5-32b": _config("qwen2", 64, 5120, 40, 8, 27648, 152064, 131072),
    "qwen2.5-72b": _config("qwen2", 80, 8192, 64, 8, 29568, 152064, 131072),
    # Qwen/Qwen3-0.6B, -1.7B, -4B, -8B, -14B, -32B
    "qwen3-0.6b": _config("qwen3", 28, 1024, 16, 8, 3072, 151936, 40960, head_dim=128, **_TIED),
    "qwen3-1.7b": _config("qwen3", 28, 2048, 16, 8, 6144, 151936, 40960, head_dim=128, **_TIED),
    "qwen3-4b": _config("qwen3", 36, 2560, 32, 8, 9728, 151936, 40960, head_dim=128, **_TIED),
    "qwen3-8b": _config("qwen3", 36, 4096, 32, 8, 12288, 151936, 40960, head_dim=128),
    "qwen3-14b": _config("qwen3", 40, 5120, 40, 8, 17408, 151936, 40960, head_dim=128),
    "qwen3-32b": _config("qwen3", 64, 5120, 64, 8, 25600, 151936, 40960, head_dim=128),
    # mistralai/Mistral-7B-v0.1
    "mistral-7b": _config("mistral", 32, 4096, 32, 8, 14336, 32000, 32768, sliding_window=4096),
    # microsoft/Phi-3.5-mini-instruct
    "phi-3.5-mini": _config("phi3", 32, 3072, 32, 32, 8192, 32064, 131072),
    # google/gemma-2-2b, gemma-2-9b
    "gemma-2-2b": _config("gemma2", 26, 2304, 8, 4, 9216, 256000, 8192, head_dim=256, **_TIED),
    "gemma-2-9b": _config("gemma2", 42, 3584, 16, 8, 14336, 256000, 8192, head_dim=256, **_TIED),
    # HuggingFaceTB/SmolLM2-1.7B
    "smollm2-1.7b": _config("llama", 24, 2048, 32, 32, 8192, 49152, 8192, **_TIED),
    # ibm-granite/granite-3.1-2b-instruct
    "granite-3.1-2b": _config("granite", 40, 2048, 32, 8, 8192, 49155, 131072, **_TIED),
}
