"""Measured tokens/s of whole devices and single cards, as llama.cpp, Ollama and MLC reach them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from testbed.studies.profile_data.rows import (
    ASSUMED_CONTEXT,
    QUANT_BITS,
    LeftOut,
    Measurement,
    Row,
    csv_rows,
    decode_pass,
    model_shape,
    prefill_pass,
)

# --- geerlingguy/ai-benchmarks: Ollama or llama.cpp, Q4_K_M, tokens/s and watts of whole systems

_SYSTEMS = {
    "Pi 5 - 16GB": "raspberry-pi-5",
    "Pi 5 - 8GB": "raspberry-pi-5",
    "Pi 500+ - 16GB": "raspberry-pi-5",
    "Pi 400 - 4GB": "raspberry-pi-4b",
    "GMKtek G3 Plus (Intel N150) - 16GB": "mini-pc",
    "GMKtec G3 Plus (Intel N150) - 16GB": "mini-pc",
    "Framework 13 (Ryzen AI 5 340 16GB)": "laptop",
    "Framework 13 (Ryzen AI 5 340)": "laptop",
    "AmpereOne A192-32X (512GB)": "cpu-server",
    "AmpereOne A192-32X - 512GB": "cpu-server",
    "Intel 265K Custom PC (Nvidia RTX 4090)": "rtx-4090",
    "Intel 13900K (Nvidia 4090)": "rtx-4090",
    "Ryzen 9 7900X (Nvidia 4090)": "rtx-4090",
}
_OLLAMA_MODELS = {
    "Llama 3.2:3b": "llama-3.2-3b",
    "Llama 3.1:70b": "llama-3.1-70b",
    "Llama 3.1:405b": "llama-3.1-405b",
    "DeepSeek R1 14b": "deepseek-r1-14b",
}


def read_ai_benchmarks(path: Path) -> Iterator[Row]:
    dataset = "ai-benchmarks"
    for row in csv_rows(path):
        label = f"{row['model']}, {row['system']}"
        reason = None
        if row["system"] not in _SYSTEMS:
            reason = "no profile of this system"
        elif row["model"] not in _OLLAMA_MODELS:
            reason = "mixture of experts: not a shape the cost model knows"
        elif row["unit"] == "GPU/CPU":
            reason = "model spread over GPU and CPU"
        if reason is not None:
            yield LeftOut(dataset=dataset, label=label, reason=reason)
            continue
        shape = model_shape(_OLLAMA_MODELS[row["model"]])
        yield Measurement(
            profile=_SYSTEMS[row["system"]],
            dataset=dataset,
            label=label,
            kind="decode",
            shape=shape,
            bits=QUANT_BITS["Q4_K_M"],
            works=decode_pass(shape, ASSUMED_CONTEXT),
            seconds=1 / float(row["tokens_per_s"]),
        )


# --- NVIDIA Jetson AI Lab (MLC INT4), StratosphereLinuxIPS (Ollama on a Pi 5)

_BOARDS = {
    "Jetson Orin Nano 8GB (original; 68 GB/s)": "jetson-orin-nano",
    "Jetson Orin Nano 8GB Super (102 GB/s)": "jetson-orin-nano-super",
    "Raspberry Pi 5": "raspberry-pi-5",
}
_BOARD_MODELS = {
    "Llama 3.1 8B": "llama-3.1-8b",
    "Llama 3.2 3B": "llama-3.2-3b",
    "Qwen2.5 7B": "qwen2.5-7b",
    "Gemma 2 2B": "gemma-2-2b",
    "Gemma 2 9B": "gemma-2-9b",
    "Phi 3.5 3B": "phi-3.5-mini",
    "SmolLM2": "smollm2-1.7b",
    "qwen2.5:3b": "qwen2.5-3b",
    "qwen2.5:1.5b": "qwen2.5-1.5b",
    "llama3.2:1b": "llama-3.2-1b",
    "llama3.2:3b": "llama-3.2-3b",
    "smollm2:1.7b": "smollm2-1.7b",
    "granite3.1-dense:2b": "granite-3.1-2b",
    "gemma3:1b": "gemma-3-1b",
}
_BOARD_DATASETS = {"nvidia": "jetson-ai-lab", "slips": "slips-rpi", "zoe": "zoe-orin-nx"}


def read_boards(path: Path) -> Iterator[Row]:
    for row in csv_rows(path):
        dataset, label = _BOARD_DATASETS[row["source"]], f"{row['model']} {row['quant']}, {row['device']}"
        if row["device"] not in _BOARDS:
            yield LeftOut(dataset=dataset, label=label, reason="no profile of this system")
        elif row["model"] not in _BOARD_MODELS:
            yield LeftOut(dataset=dataset, label=label, reason="1.58-bit format of its own")
        else:
            shape = model_shape(_BOARD_MODELS[row["model"]])
            yield Measurement(
                profile=_BOARDS[row["device"]],
                dataset=dataset,
                label=label,
                kind="decode",
                shape=shape,
                bits=QUANT_BITS[row["quant"]],
                works=decode_pass(shape, ASSUMED_CONTEXT),
                seconds=1 / float(row["tokens_per_s"]),
            )


# --- XiongjieDai/GPU-Benchmarks-on-LLM-Inference: llama-bench, LLaMA 3 (of Llama 3.1's sizes)

_CARDS = {"4090 24GB": "rtx-4090", "A100 PCIe 80GB": "a100", "A100 SXM 80GB": "a100"}
_CARD_MODELS = {"8B": "llama-3.1-8b", "70B": "llama-3.1-70b"}
_CARD_COLUMNS = [(kind, tokens) for kind in ("tg", "pp") for tokens in (512, 1024, 4096, 8192)]


def read_gpu_benchmarks(path: Path) -> Iterator[Row]:
    card = ""
    dataset = "gpu-benchmarks"
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 2 + len(_CARD_COLUMNS) or not re.match(r"(8|70)B ", cells[1]):
            continue
        card = cells[0] or card
        if card == "H100 PCIe 80GB":
            yield LeftOut(dataset=dataset, label=f"{cells[1]}, {card}", reason="the profile is the SXM board")
        elif card not in _CARDS:
            reason = "several GPUs" if "*" in card else "no profile of this system"
            yield LeftOut(dataset=dataset, label=f"{cells[1]}, {card}", reason=reason)
        else:
            yield from _card_rows(dataset, card, cells[1], cells[2:])


def _card_rows(dataset: str, card: str, model: str, cells: list[str]) -> Iterator[Row]:
    size, quant = model.split()
    shape = model_shape(_CARD_MODELS[size])
    for (kind, tokens), cell in zip(_CARD_COLUMNS, cells, strict=True):
        label = f"{model} {kind} {tokens}, {card}"
        if cell == "OOM":
            yield LeftOut(dataset=dataset, label=label, reason="out of memory")
            continue
        is_prefill = kind == "pp"
        speed = float(cell)
        yield Measurement(
            profile=_CARDS[card],
            dataset=dataset,
            label=label,
            kind="prefill" if is_prefill else "decode",
            shape=shape,
            bits=QUANT_BITS[quant],
            works=prefill_pass(shape, tokens) if is_prefill else decode_pass(shape, tokens // 2),
            seconds=(tokens if is_prefill else 1) / speed,
        )
