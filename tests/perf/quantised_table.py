"""What each way to store weights costs a small trained model: ``python -m tests.perf.quantised_table DATA``.

stories260K on TinyStories: calibration on the first 64 stories, scores on 200 later ones. Perplexity is per token of
the model's own vocabulary of 512; agreement counts positions where the most likely token is the full model's.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from testbed.models.source import from_folder
from testbed.models.tokenizer import load_tokenizer
from testbed.quantization.apply import needs_text, quantise_module
from testbed.quantization.blocks import Blocks, collect_blocks
from testbed.quantization.calibrate import Statistics, collect
from testbed.quantization.config import WeightConfig
from testbed.quantization.formats import ActivationFormat, format_of, input_format_of
from testbed.quantization.packed import PackedLinear

CALIBRATION, HELD_OUT, LENGTH = 64, 200, 256
ROWS = [
    ("rtn", 8, None, False),
    ("rtn", 6, 32, False),
    ("rtn", 5, 32, False),
    ("rtn", 4, None, False),
    ("rtn", 4, 32, True),
    ("rtn", 4, 32, False),
    ("gptq", 4, 32, False),
    ("gptq+act", 4, 32, False),
    ("rtn", 3, 32, False),
    ("gptq", 3, 32, False),
    ("gptq+act", 3, 32, False),
    ("rtn", 2, 32, False),
    ("gptq", 2, 32, False),
    ("gptq+act", 2, 32, False),
    ("fp8", 8, None, True),
    ("smoothquant", 8, None, True),
]
ROUNDED_ROWS = [  # method, weight bits, their group, input bits, their group; None: as they are, or the whole row
    ("-", None, None, 8, None),
    ("-", None, None, 4, None),
    ("-", None, None, 4, 32),
    ("rtn", 8, None, 8, None),
    ("rtn", 8, None, 4, 32),
    ("smoothquant", 8, None, 8, None),
    ("rtn", 4, 32, 8, None),
    ("gptq", 4, 32, 8, None),
    ("atom", 4, 32, None, None),
    ("atom", 4, 32, 8, 32),
    ("rtn", 4, 32, 4, 32),
    ("gptq", 4, 32, 4, 32),
    ("atom", 4, 32, 4, 32),
    ("rtn", 3, 32, 3, 32),
    ("atom", 3, 32, 3, 32),
]
LEARNED_ROWS = [
    ("rtn", 6, None, 6),
    ("omniquant", 6, None, 6),
    ("rtn", 4, None, 4),
    ("omniquant", 4, None, 4),
    ("omniquant", 4, 32, None),
    ("omniquant+clip", 4, 32, None),
    ("omniquant", 3, 32, None),
    ("omniquant+clip", 3, 32, None),
    ("omniquant", 2, 32, None),
]


def main(data: Path) -> None:
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    folder = data / "stories260K" / "hf"
    tokenizer = load_tokenizer(from_folder(folder), str(data / "stories260K" / "tok512.model"))
    text = (data / "tinystories" / "tinystories_2MiB.txt").read_text(encoding="utf-8")
    stories = [tokenizer.encode(story.strip())[:LENGTH] for story in text.split("<|endoftext|>")]
    seen_text, held_out = stories[:CALIBRATION], stories[CALIBRATION : CALIBRATION + HELD_OUT]
    exact = AutoModelForCausalLM.from_pretrained(folder).eval()
    seen = collect(exact, lambda: [run(exact, story) for story in seen_text])
    reference = [run(exact, story) for story in held_out]
    print("| method | bits | group | symmetric | kB | perplexity | agreement | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    print(row("full precision | 32 | - | -", exact, held_out, reference), "- |")
    for name, bits, group, symmetric in ROWS:
        method, _, act_order = name.partition("+")
        fmt = format_of(method, bits, group_size=group, symmetric=symmetric)
        config = WeightConfig(method=method, split=5, front=fmt, act_order=bool(act_order))
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        started = time.perf_counter()
        quantise_module(model, config, statistics=seen if needs_text(config) else None)
        seconds = time.perf_counter() - started
        setting = f"{name} | {bits} | {group or 'row'} | {'yes' if symmetric else 'no'}"
        print(row(setting, model, held_out, reference), f"{seconds:.2f} |")
    print("\n| method | bits | group | inputs | their group | kB | perplexity | agreement |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for rounded in ROUNDED_ROWS:
        print(rounded_row(rounded, folder, seen, held_out, reference), flush=True)
    blocks = collect_blocks(exact, lambda: [run(exact, story) for story in seen_text])
    print("\n| method | bits | group | inputs | kB | perplexity | agreement | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for setting in LEARNED_ROWS:
        print(learned_row(setting, folder, blocks, held_out, reference), flush=True)


def rounded_row(
    setting: tuple[str, int | None, int | None, int | None, int | None],
    folder: Path,
    seen: Statistics,
    held_out: list[list[int]],
    reference: list[torch.Tensor],
) -> str:
    """Weights and inputs symmetric; Atom keeps 8 outlier channels and clips as published."""
    name, bits, group, input_bits, input_group = setting
    method = "rtn" if name == "-" else name
    outliers = {"outliers": 8} if name == "atom" else {}
    fmt = None if bits is None else format_of(method, bits, group_size=group, symmetric=True, **outliers)
    inputs = None
    if input_bits is not None:
        inputs = input_format_of(method, input_bits, group_size=input_group, symmetric=True)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    config = WeightConfig(method=method, split=5, front=fmt, front_inputs=inputs)
    quantise_module(model, config, statistics=seen if needs_text(config) else None)
    widths = f"{bits or '-'} | {'-' if bits is None else group or 'row'}"
    shown = f"{name} | {widths} | {input_bits or '-'} | {'-' if input_bits is None else input_group or 'token'}"
    return row(shown, model, held_out, reference)


def learned_row(
    setting: tuple[str, int, int | None, int | None],
    folder: Path,
    blocks: Blocks,
    held_out: list[list[int]],
    reference: list[torch.Tensor],
) -> str:
    """Weights asymmetric, inputs symmetric per token; 20 epochs."""
    name, bits, group, input_bits = setting
    method, _, clip_alone = name.partition("+")
    fmt = format_of(method, bits, group_size=group, symmetric=False, transform=not clip_alone)
    inputs = None if input_bits is None else ActivationFormat(bits=input_bits)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    started = time.perf_counter()
    config = WeightConfig(method=method, split=5, front=fmt, front_inputs=inputs)
    quantise_module(model, config, blocks=blocks)
    seconds = time.perf_counter() - started
    shown = f"{name} | {bits} | {group or 'row'} | {input_bits or '-'}"
    return f"{row(shown, model, held_out, reference)} {seconds:.0f} |"


def row(setting: str, model: torch.nn.Module, held_out: list[list[int]], reference: list[torch.Tensor]) -> str:
    loss, agree, num_tokens = 0.0, 0, 0
    for story, expected in zip(held_out, reference, strict=True):
        found = run(model, story)
        loss += float(functional.cross_entropy(found[:-1], torch.tensor(story[1:]), reduction="sum"))
        agree += int((found.argmax(-1) == expected.argmax(-1))[:-1].sum())
        num_tokens += len(story) - 1
    perplexity, share = math.exp(loss / num_tokens), agree / num_tokens
    return f"| {setting} | {held_bytes(model) / 1000:.0f} | {perplexity:.3f} | {100 * share:.1f} % |"


def held_bytes(model: torch.nn.Module) -> int:
    """Of the decoder layers' matrices, as they are stored."""
    layers = [part for part in model.modules() if isinstance(part, PackedLinear)]
    packed = sum(part.store.stored_bytes() for part in layers)
    packed += sum(part.smooth.nbytes for part in layers if part.smooth is not None)
    packed += sum(part.order.nbytes for part in layers if part.order is not None)
    plain = (part for path, part in model.named_modules() if isinstance(part, torch.nn.Linear) and "layers" in path)
    return packed + sum(part.weight.nbytes for part in plain)


@torch.inference_mode()
def run(model: torch.nn.Module, story: list[int]) -> torch.Tensor:
    """Logits at every position."""
    logits: torch.Tensor = model(input_ids=torch.tensor([story])).logits[0].float()
    return logits


if __name__ == "__main__":
    main(Path(sys.argv[1]))
