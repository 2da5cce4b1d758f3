"""Measure pebble: ``python -m testbed.models.pebble.evaluate [MODEL_DIR] [--out REPORT.json] [--card]``.

Held-out perplexity, accuracy of each kind of item as the LM evaluation harness scores it (acc: largest summed
log-probability, acc_norm: per character), and what rounded weights and rounded hidden states change, item by item.
With --card the report is also written into the model folder, as evaluation.json and as the card README.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from testbed.models.likelihood import LogitsOf, score_pairs
from testbed.models.pebble.card import render_card
from testbed.models.pebble.corpus import FIRST_HELD_OUT_DOCUMENT, document
from testbed.models.pebble.damage import rounded_cut, rounded_weights
from testbed.models.pebble.prompts import prompts
from testbed.models.pebble.scoring import (
    ROWS_PER_BATCH,
    Encode,
    Scored,
    dense_logits,
    document_pair,
    encoder,
    score_items,
)
from testbed.models.pebble.tasks import KINDS, Item, build_items
from testbed.models.pebble.tokenizer import MAX_CONTEXT_TOKENS
from testbed.models.pebble.world import DEFAULT_SEED, World, build_world

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "weights"
NUM_HELD_OUT_DOCUMENTS = 1500
CLOSE_CALL = 0.2  # items whose runner-up the corpus states at least this often
WEIGHT_BITS = (8, 6, 5, 4, 3, 2)
CUT_BITS = (8, 6, 5, 4, 3, 2)
Z_95 = 1.96


def load_model(folder: Path) -> tuple[LlamaForCausalLM, Tokenizer]:
    """The model in float32 (in bfloat16 close calls tie) and its tokenizer."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.train(False), Tokenizer.from_file(str(folder / "tokenizer.json"))


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927)."""
    share, z2 = right / total, Z_95**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return middle - half, middle + half


def summarize(scored: Sequence[Scored], items: Sequence[Item]) -> dict[str, Any]:
    """Accuracy with its interval and the margins of some items."""
    right = sum(one.chosen == item.gold for one, item in zip(scored, items, strict=True))
    right_by_length = sum(one.chosen_by_length == item.gold for one, item in zip(scored, items, strict=True))
    margins = sorted(one.margin for one in scored)
    return {
        "num_items": len(items),
        "num_choices": len(items[0].choices),
        "num_right": right,
        "acc": right / len(items),
        "acc_interval_95": wilson_interval(right, len(items)),
        "acc_norm": right_by_length / len(items),
        "median_margin_nats": margins[len(margins) // 2],
    }


def compare(scored: Sequence[Scored], before: Sequence[Scored], items: Sequence[Item]) -> dict[str, Any]:
    """What damage did to the same items: accuracy, share of changed choices, paired change of the margin in nats."""
    changes = [after.margin - one.margin for after, one in zip(scored, before, strict=True)]
    mean = sum(changes) / len(changes)
    variance = sum((change - mean) ** 2 for change in changes) / max(1, len(changes) - 1)
    return {
        "num_items": len(items),
        "acc": sum(one.chosen == item.gold for one, item in zip(scored, items, strict=True)) / len(items),
        "flip_rate": sum(a.chosen != b.chosen for a, b in zip(scored, before, strict=True)) / len(items),
        "mean_abs_margin_change_nats": sum(abs(change) for change in changes) / len(changes),
        "mean_margin_change_nats": mean,
        "mean_margin_change_half_width_95_nats": Z_95 * math.sqrt(variance / len(changes)),
    }


def held_out_perplexity(
    logits_of: LogitsOf,
    encode: Encode,
    world: World,
    *,
    num_documents: int = NUM_HELD_OUT_DOCUMENTS,
    batch_size: int = ROWS_PER_BATCH,
    observe: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """exp(mean nats per token) over fresh documents, of each kind and of all; the end token counts as a token."""
    documents = [document(world, FIRST_HELD_OUT_DOCUMENT + index) for index in range(num_documents)]
    pairs = [document_pair(encode, one.text) for one in documents]
    found = score_pairs(logits_of, pairs, max_tokens=MAX_CONTEXT_TOKENS, batch_size=batch_size, observe=observe)
    nats: dict[str, float] = {}
    tokens: dict[str, int] = {}
    for one, pair, likelihood in zip(documents, pairs, found, strict=True):
        for kind in (one.kind, "all"):
            nats[kind] = nats.get(kind, 0.0) - likelihood.logprob
            tokens[kind] = tokens.get(kind, 0) + len(pair.continuation)
    return {kind: {"perplexity": math.exp(nats[kind] / tokens[kind]), "num_tokens": tokens[kind]} for kind in nats}


def accuracy_report(scored: Sequence[Scored], items: Sequence[Item]) -> dict[str, Any]:
    """Each kind as a whole and split by how often the corpus stated the runner-up."""
    report: dict[str, Any] = {}
    for kind in KINDS:
        chosen = [(one, item) for one, item in zip(scored, items, strict=True) if item.kind == kind]
        report[kind] = summarize([one for one, _ in chosen], [item for _, item in chosen])
        levels = sorted({item.p_runner_up for _, item in chosen})
        report[kind]["by_p_runner_up"] = {
            str(level): summarize(*_unzip([pair for pair in chosen if pair[1].p_runner_up == level]))
            for level in levels
        }
    return report


def _unzip(pairs: Sequence[tuple[Scored, Item]]) -> tuple[list[Scored], list[Item]]:
    return [one for one, _ in pairs], [item for _, item in pairs]


def above_chance(row: dict[str, Any]) -> bool:
    """Whether an accuracy's interval lies above chance: a kind at chance shows no damage and is no yardstick."""
    return bool(row["acc_interval_95"][0] > 1 / row["num_choices"])


def sensitivity(model: LlamaForCausalLM, tokenizer: Tokenizer, items: Sequence[Item]) -> list[dict[str, Any]]:
    """Every damage in turn on the same items: for all of them, for the close calls, and for each kind."""
    before = score_items(model, tokenizer, items)
    rows = []
    for where, bits, damage in _damages(model):
        with damage:
            after = score_items(model, tokenizer, items)
        row: dict[str, Any] = {"where": where, "bits": bits, "all": compare(after, before, items)}
        row["close_calls"] = _compare_some(after, before, items, [item.p_runner_up >= CLOSE_CALL for item in items])
        row["by_kind"] = {
            kind: _compare_some(after, before, items, [item.kind == kind for item in items])
            for kind in dict.fromkeys(item.kind for item in items)
        }
        rows.append(row)
        log.info("%s int%d: %s", where, bits, row["all"])
    return rows


def _compare_some(
    after: Sequence[Scored], before: Sequence[Scored], items: Sequence[Item], wanted: Sequence[bool]
) -> dict[str, Any]:
    kept = [index for index, keep in enumerate(wanted) if keep]
    return compare([after[i] for i in kept], [before[i] for i in kept], [items[i] for i in kept])


def _damages(model: LlamaForCausalLM) -> list[tuple[str, int, AbstractContextManager[None]]]:
    layers = model.config.num_hidden_layers
    parts = {
        "weights, front half": range(layers // 2),
        "weights, back half": range(layers // 2, layers),
        "weights, all layers": range(layers),
    }
    cuts = (layers // 4, layers // 2, 3 * layers // 4)
    weights = [(name, bits, rounded_weights(model, part, bits)) for name, part in parts.items() for bits in WEIGHT_BITS]
    hidden = [(f"hidden states, cut {cut}", bits, rounded_cut(model, cut, bits)) for cut in cuts for bits in CUT_BITS]
    return [*weights, *hidden]


@torch.no_grad()
def sample_continuations(model: LlamaForCausalLM, tokenizer: Tokenizer, count: int = 8) -> list[dict[str, str]]:
    """Greedy continuations of held-out prompts."""
    found = []
    for prompt in prompts(0, count):
        ids = torch.tensor([tokenizer.encode(prompt).ids])
        mask = torch.ones_like(ids)
        out = model.generate(ids, attention_mask=mask, max_new_tokens=40, do_sample=False)  # type: ignore[misc]
        found.append({"prompt": prompt, "continuation": tokenizer.decode(out[0, ids.shape[1] :].tolist())})
    return found


def evaluate(folder: Path, *, seed: int = DEFAULT_SEED, per_kind: int | None = None) -> dict[str, Any]:
    """The whole report as JSON types; `per_kind` limits the items of the sensitivity table only."""
    model, tokenizer = load_model(folder)
    world = build_world(seed)
    items = build_items(world)
    curve = folder / "curve.jsonl"
    accuracy = accuracy_report(score_items(model, tokenizer, items), items)
    yardstick = [item for item in build_items(world, per_kind) if above_chance(accuracy[item.kind])]
    return {
        "seed": seed,
        "per_kind": per_kind,
        "num_weights": sum(weight.numel() for weight in model.parameters()),
        "vocab_size": tokenizer.get_vocab_size(),
        "config": {
            name: getattr(model.config, name)
            for name in (
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "num_key_value_heads",
                "max_position_embeddings",
            )
        },
        "curve": [json.loads(line) for line in curve.read_text().splitlines()] if curve.is_file() else [],
        "accuracy": accuracy,
        "perplexity": held_out_perplexity(dense_logits(model), encoder(tokenizer), world),
        "continuations": sample_continuations(model, tokenizer),
        "sensitivity": sensitivity(model, tokenizer, yardstick) if yardstick else [],
    }


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m testbed.models.pebble.evaluate", description="Measure pebble.")
    parser.add_argument("model_dir", type=Path, nargs="?", default=SHIPPED)
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="seed of the world the model was trained on")
    parser.add_argument("--per-kind", type=int, help="use only so many items of each kind for the sensitivity table")
    parser.add_argument("--out", type=Path, help="write the report here as JSON")
    parser.add_argument("--card", action="store_true", help="write evaluation.json and README.md into MODEL_DIR")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(given.threads)
    report = evaluate(given.model_dir, seed=given.seed, per_kind=given.per_kind)
    text = json.dumps(report, indent=1) + "\n"
    for kind, row in report["accuracy"].items():
        log.info("%s: %d of %d right, acc %.3f", kind, row["num_right"], row["num_items"], row["acc"])
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")
    if given.card:
        (given.model_dir / "evaluation.json").write_text(text, encoding="utf-8")
        (given.model_dir / "README.md").write_text(render_card(report), encoding="utf-8")


if __name__ == "__main__":
    main()
