"""Train pebble from nothing: ``python -m testbed.models.pebble.train --out DIR [--seed N] [--steps N] [--minutes M]``.

The budget in steps sets the learning-rate schedule and the curriculum (a polish of a quarter as many steps follows),
so the same seed, budget and thread count give the same weights on the same machine. A run that is stopped (or runs out
of minutes) goes on from its checkpoint. DIR receives the model folder, `curve.jsonl` (the learning curve) and
`checkpoint.pt`.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from testbed.models.pebble import tokenizer as pebble_tokenizer
from testbed.models.pebble.batches import Batch, build_batch
from testbed.models.pebble.corpus import POLISH_SHARES, PRONOUN_LESSON_SHARES, PRONOUNS_FROM, PRONOUNS_UNTIL, Lesson
from testbed.models.pebble.scoring import accuracy_by_kind, score_items
from testbed.models.pebble.tasks import build_items
from testbed.models.pebble.world import DEFAULT_SEED, World, build_world

log = logging.getLogger(__name__)

HIDDEN_SIZE = 96
NUM_LAYERS = 12
PEAK_LEARNING_RATE = 3e-3
WARMUP_STEPS = 100
FLAT_UNTIL = 0.75  # share of the budget after which the learning rate falls in a line
FINAL_RATE = 0.02
POLISH = 0.25  # after the budget, so much of it again at a low rate, mostly on what the weights must hold
POLISH_RATE = 0.15
WEIGHT_DECAY = 0.05
ITEMS_PER_KIND_IN_CURVE = 60


@dataclass(slots=True, kw_only=True)
class Run:
    """A training run between two steps."""

    world: World
    tokenizer: Tokenizer
    model: LlamaForCausalLM
    optimizer: torch.optim.Optimizer
    num_steps: int
    step: int = 0
    num_tokens: int = 0
    trained_s: float = 0.0


def new_model(vocab_size: int, seed: int) -> LlamaForCausalLM:
    """Untrained weights: matrices at 1/sqrt(fan-in), what writes into the residual stream smaller by sqrt(2 layers)."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=256,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=pebble_tokenizer.MAX_CONTEXT_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=pebble_tokenizer.BOS_ID,
        eos_token_id=pebble_tokenizer.EOS_ID,
        pad_token_id=pebble_tokenizer.PAD_ID,
    )
    # The fused attention's backward pass is slow on CPUs: half of a step.
    config._attn_implementation = "eager"
    model = LlamaForCausalLM(config)
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            std = 0.05 if "embed" in name else weight.shape[1] ** -0.5
            residual = "o_proj" in name or "down_proj" in name
            torch.nn.init.normal_(weight, 0.0, std / math.sqrt(2 * NUM_LAYERS) if residual else std)
    return model


def new_run(world: World, num_steps: int) -> Run:
    """A run before its first step."""
    tokenizer = pebble_tokenizer.train_tokenizer(world)
    model = new_model(tokenizer.get_vocab_size(), world.seed)
    matrices = [weight for weight in model.parameters() if weight.dim() == 2]
    norms = [weight for weight in model.parameters() if weight.dim() < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.97), fused=True)
    return Run(world=world, tokenizer=tokenizer, model=model, optimizer=optimizer, num_steps=num_steps)


def learning_rate(step: int, num_steps: int) -> float:
    """Warm up, stay flat, then fall in a line to `FINAL_RATE` of the peak; polish from `POLISH_RATE` down to zero."""
    if step >= num_steps:
        return PEAK_LEARNING_RATE * POLISH_RATE * (1 - (step - num_steps) / (total_steps(num_steps) - num_steps))
    falling = max(0.0, (step / num_steps - FLAT_UNTIL) / (1 - FLAT_UNTIL))
    return PEAK_LEARNING_RATE * min(1.0, (step + 1) / WARMUP_STEPS) * (1 - falling * (1 - FINAL_RATE))


def total_steps(num_steps: int) -> int:
    """The steps of the budget and of the polish after it."""
    return num_steps + round(POLISH * num_steps)


def lesson(step: int, num_steps: int) -> Lesson:
    """The curriculum: a fifth of the creatures until 12 % of the budget, all from 40 % on; a while of pronouns."""
    breadth = min(1.0, 0.2 + 0.8 * max(0.0, step / num_steps - 0.12) / 0.28)
    if step >= num_steps:
        return Lesson(shares=POLISH_SHARES)
    if not PRONOUNS_FROM <= step / num_steps < PRONOUNS_UNTIL:
        return Lesson(breadth=breadth)
    return Lesson(breadth=breadth, shares=PRONOUN_LESSON_SHARES, p_turned_active=0.4)


def train_step(run: Run) -> float:
    """One update; returns the weighted mean loss in nats per token."""
    batch = build_batch(run.world, run.tokenizer, run.step, lesson(run.step, run.num_steps))
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(run.step, run.num_steps)
    loss = _loss(run.model, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    run.step += 1
    run.num_tokens += int((batch.weights > 0).sum())
    return float(loss.detach())


def _loss(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        logits_BTV = model(input_ids=batch.inputs, use_cache=False).logits
    loss_N = torch.nn.functional.cross_entropy(
        logits_BTV.float().flatten(0, 1), batch.targets.flatten(), reduction="none"
    )
    weight_N = batch.weights.flatten()
    return (loss_N * weight_N).sum() / weight_N.sum()


def save_checkpoint(run: Run, path: Path) -> None:
    """Write everything a stopped run needs, in one move, so that a crash leaves the former checkpoint."""
    state = {
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "num_steps": run.num_steps,
        "step": run.step,
        "num_tokens": run.num_tokens,
        "trained_s": run.trained_s,
    }
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def load_checkpoint(run: Run, path: Path) -> None:
    """Go on where the checkpoint was written; its step budget holds, since it shaped the schedule so far."""
    state: dict[str, Any] = torch.load(path, weights_only=True)
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.num_steps, run.step = state["num_steps"], state["step"]
    run.num_tokens, run.trained_s = state["num_tokens"], state["trained_s"]


def save_model(run: Run, folder: Path) -> None:
    """Write the model folder that transformers and the testbed load: float32 safetensors, config, tokenizer."""
    run.model.config.use_cache = True
    run.model.save_pretrained(folder)
    pebble_tokenizer.save_tokenizer(run.tokenizer, folder)


def train(run: Run, out: Path, *, max_s: float = math.inf, log_every: int = 250) -> None:
    """Step until the budget or the time is spent, with a curve row and a checkpoint every `log_every` steps."""
    items = build_items(run.world, per_kind=ITEMS_PER_KIND_IN_CURVE)
    last_step = total_steps(run.num_steps)
    mean_loss, began_s = 0.0, time.monotonic()
    while run.step < last_step and time.monotonic() - began_s < max_s:
        step_began_s = time.monotonic()
        loss = train_step(run)
        mean_loss = loss if mean_loss == 0.0 else 0.98 * mean_loss + 0.02 * loss
        run.trained_s += time.monotonic() - step_began_s
        if run.step % log_every == 0 or run.step == last_step:
            accuracy = accuracy_by_kind(score_items(run.model, run.tokenizer, items), items)
            _log_curve(run, out / "curve.jsonl", mean_loss, accuracy)
            save_checkpoint(run, out / "checkpoint.pt")
    save_checkpoint(run, out / "checkpoint.pt")
    save_model(run, out)


def _log_curve(run: Run, path: Path, loss: float, accuracy: dict[str, float]) -> None:
    row = {
        "step": run.step,
        "num_tokens": run.num_tokens,
        "trained_s": round(run.trained_s, 1),
        "loss_nats": round(loss, 4),
        "accuracy": {kind: round(value, 4) for kind, value in accuracy.items()},
    }
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    log.info("%s", row)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m testbed.models.pebble.train", description="Train pebble.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model, the curve and the checkpoint")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="seed of the world, its corpus and the weights")
    parser.add_argument("--steps", type=int, default=4600, help="step budget before the polish; sets the schedule")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop with a checkpoint after so long")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    run = new_run(build_world(given.seed), given.steps)
    if (given.out / "checkpoint.pt").is_file():
        load_checkpoint(run, given.out / "checkpoint.pt")
    train(run, given.out, max_s=given.minutes * 60)


if __name__ == "__main__":
    main()
