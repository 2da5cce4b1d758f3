"""Measured operators and whole passes of server GPUs, as serving simulators profile them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from testbed.actors.roofline import sliced
from testbed.core.work import Work
from testbed.models.shape import ModelShape
from testbed.studies.profile_data.rows import (
    LeftOut,
    Measurement,
    Row,
    csv_rows,
    decode_pass,
    model_shape,
    prefill_pass,
)

# --- microsoft/vidur: operators of one Llama 2 7B layer, whole and as tensor-parallel slices; no attention kernel

LAYER_OPS = (
    "input_layernorm",
    "attn_pre_proj",
    "attn_rope",
    "attn_post_proj",
    "post_attention_layernorm",
    "mlp_up_proj",
    "mlp_act",
    "mlp_down_proj",
    "add",
)


def read_vidur(folder: Path) -> Iterator[Row]:
    whole = model_shape("llama-2-7b")
    for profile in ("a100", "h100"):
        best: dict[tuple[int, int], list[float]] = defaultdict(list)
        for row in csv_rows(folder / profile / "meta-llama" / "Llama-2-7b-hf" / "mlp.csv"):
            key = (int(row["num_tensor_parallel_workers"]), int(row["num_tokens"]))
            best[key].append(sum(float(row[f"time_stats.{op}.median"]) for op in LAYER_OPS) * 1e-3)
        for (parallel, tokens), seconds in sorted(best.items()):
            if tokens & (tokens - 1):  # powers of two are enough
                continue
            yield Measurement(
                profile=profile,
                dataset="vidur",
                label=f"one layer of Llama 2 7B, 1/{parallel} slice, {tokens} tokens",
                kind="layer",
                shape=sliced(whole, parallel),
                bits=16,
                works=(Work(start=1, stop=2, new_tokens=tokens, past_tokens=0),),
                seconds=median(seconds),
            )


# --- casys-kaist/LLMServingSim: every operator of Llama 3.1 8B in bf16 on an RTX 4090, added up to whole passes

PER_LAYER = ("qkv_proj", "rotary_emb", "o_proj", "gate_up_proj", "act_fn", "down_proj")


def read_llmservingsim(folder: Path) -> Iterator[Row]:
    shape = model_shape("llama-3.1-8b")
    folder = folder / "RTX4090" / "meta-llama" / "Llama-3.1-8B" / "bf16" / "tp1"
    dense: dict[int, dict[str, float]] = defaultdict(dict)
    for row in csv_rows(folder / "dense.csv"):
        dense[int(row["tokens"])][row["layer"]] = float(row["time_us"])
    heads = {
        int(row["sequences"]): float(row["time_us"])
        for row in csv_rows(folder / "per_sequence.csv")
        if row["layer"] == "lm_head"
    }
    for row in csv_rows(folder / "attention.csv"):
        chunk, past, batch, context = (
            int(row[key]) for key in ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")
        )
        tokens = chunk or batch
        pure_decode = not chunk and context in (128, 1024, 4096, 16384) and batch in (1, 8, 32, 128)
        pure_prefill = not batch and past in (0, 1024, 4096)
        if tokens not in dense or not (pure_decode or pure_prefill):
            continue
        ops = dense[tokens]
        layer_us = sum(ops[op] for op in PER_LAYER) + 2 * ops["layernorm"] + float(row["time_us"])
        total_us = ops["embedding"] + shape.num_layers * layer_us + ops["final_layernorm"] + heads[batch or 1]
        works = prefill_pass(shape, chunk, past) if chunk else decode_pass(shape, context, batch)
        yield Measurement(
            profile="rtx-4090",
            dataset="llmservingsim",
            label=f"prefill {chunk} after {past}" if chunk else f"decode batch {batch} context {context}",
            kind="prefill" if chunk else "decode",
            shape=shape,
            bits=16,
            works=works,
            seconds=total_us * 1e-6,
        )


# --- Mutinifni/splitwise-sim: whole Llama 2 70B passes on 2 GPUs of a DGX, all-reduce and serving stack included

_DGX = {"a100-80gb": "a100", "h100-80gb": "h100"}


def read_splitwise(path: Path) -> Iterator[Row]:
    shape = model_shape("llama-2-70b")
    times: dict[tuple[str, int, int], list[tuple[float, float]]] = defaultdict(list)
    for row in csv_rows(path):
        if row["model"] != "llama2-70b" or row["tensor_parallel"] != "2" or row["token_size"] != "128":
            continue
        key = (row["hardware"], int(row["prompt_size"]), int(row["batch_size"]))
        times[key].append((float(row["prompt_time"]) * 1e-3, float(row["token_time"]) * 1e-3))
    for (hardware, prompt, batch), pairs in sorted(times.items()):
        label = f"Llama 2 70B, 2 GPUs, prompt {prompt} batch {batch}"
        if hardware not in _DGX:
            yield LeftOut(dataset="splitwise", label=f"{label}, {hardware}", reason="power capped")
            continue
        if batch == 64:  # noqa: PLR2004
            reason = "its prompt time is below that of batch 8: not a valid measurement"
            yield LeftOut(dataset="splitwise", label=f"{label}, {hardware}", reason=reason)
            continue
        measure = _splitwise_row(_DGX[hardware], label, shape)
        yield measure("prefill", prefill_pass(shape, prompt, batch=batch), median(pair[0] for pair in pairs))
        yield measure("decode", decode_pass(shape, prompt + 64, batch), median(pair[1] for pair in pairs))


def _splitwise_row(
    profile: str, label: str, shape: ModelShape
) -> Callable[[str, tuple[Work, ...], float], Measurement]:
    def measure(kind: str, works: tuple[Work, ...], seconds: float) -> Measurement:
        return Measurement(
            profile=profile,
            dataset="splitwise",
            label=f"{label}, {kind}",
            kind=kind,
            shape=shape,
            bits=16,
            works=works,
            seconds=seconds,
            devices=2,
        )

    return measure
