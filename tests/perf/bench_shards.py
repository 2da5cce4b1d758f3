"""How much of the model's own speed is left when a run computes with real shards.

Eight real devices and one server, pebble cut in the middle, all in this process, beside a bare loop over the same two
shards at batch 8: front, back, argmax, and nothing else. Both in CPU time and with prompts of equal length; the run
also pays for codecs, links, events and tables. `share_of_bare_loop` is of devices in step, which ask at one instant
over equal links, so that batches of 8 form; `share_when_scattered` of devices that ask milliseconds apart of a server
that is done with each before the next comes: batches of one or two, as the scenario has it.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from testbed.models.shard import Shard, ShardInput
from testbed.models.source import resolve
from testbed.models.threads import one_thread
from testbed.run import Prepared, prepare, run
from testbed.scenarios.load import build_scenario
from testbed.scenarios.overrides import apply_overrides

DEVICES, TOKENS, PROMPT, SPLIT = 8, 320, 16, 6
FEW_TOKENS = 64
ROUNDS = 3
SCATTERED = ["workload.arrivals.rate_per_device=1000 /s", f"workload.output_tokens.value={FEW_TOKENS}"]
SCENARIO = {
    "name": "shards",
    "model": "pebble",
    "seed": 3,
    "policy": {"kind": "static", "split": SPLIT, "codec": "int8"},
    "fleet": [
        {
            "name": "boards",
            "device": "raspberry-pi-5",
            "count": DEVICES,
            "compute": "real",
            "link": {"use": "5g", "loss": 0.0, "jitter": None},  # equal for all
        }
    ],
    "servers": [{"name": "cloud", "server": "l4", "max_batch": DEVICES}],
    "workload": {
        "arrivals": {"kind": "poisson", "rate_per_device": "1e12 /s", "requests_per_device": 1},
        "prompts": {"kind": "random", "length": {"law": "fixed", "value": PROMPT}},
        "output_tokens": {"law": "fixed", "value": TOKENS},
        "ignore_eos": True,
    },
    "record": {"quality": False, "spans": False},
}


def measure() -> list[dict[str, object]]:
    """Rows {name, value, unit, yardstick_name, yardstick_value}; the best of some rounds, taken in turns."""
    in_step, scattered = (
        prepare(build_scenario(apply_overrides(SCENARIO, some), base=Path())) for some in ([], SCATTERED)
    )
    with one_thread():
        loop = _BareLoop()
        work = (loop.tokens, lambda: _whole(in_step), lambda: _whole(scattered))
        rounds = [[_cpu_s(one) for one in work] for _ in range(1 + ROUNDS)][1:]
    each = (TOKENS, TOKENS, FEW_TOKENS)
    bare, whole, apart = (
        DEVICES * num / min(taken) for num, taken in zip(each, zip(*rounds, strict=True), strict=True)
    )
    yardstick = {"yardstick_name": "bare batched loop, tokens/CPU-s", "yardstick_value": bare}
    return [
        {"name": "shards.tokens_per_cpu_s", "value": whole, "unit": "tokens/CPU-s", **yardstick},
        _share("shards.share_of_bare_loop", whole / bare),
        _share("shards.share_when_scattered", apart / bare),
    ]


def _share(name: str, value: float) -> dict[str, object]:
    return {"name": name, "value": value, "unit": "of the bare loop", "yardstick_name": None, "yardstick_value": None}


class _BareLoop:
    """The model and nothing else: a batch through the front, then through the back, a token each."""

    def __init__(self) -> None:
        source = resolve("pebble")
        self._front = Shard(source, start=0, stop=SPLIT)
        self._back = Shard(source, start=SPLIT, stop=source.shape.num_layers)
        self._prompts = np.random.default_rng(3).integers(0, source.shape.vocab_size, (DEVICES, PROMPT)).tolist()

    def tokens(self) -> None:
        for shard in (self._front, self._back):
            for session in range(DEVICES):
                shard.open(session)
        tokens = self._prompts
        for _ in range(TOKENS):
            hidden = self._front.forward([ShardInput(session=at, tokens=new) for at, new in enumerate(tokens)])
            logits = self._back.forward([ShardInput(session=at, hidden=new) for at, new in enumerate(hidden)])
            tokens = [[int(row.argmax())] for row in logits]
        for shard in (self._front, self._back):
            for session in range(DEVICES):
                shard.close(session)


def _whole(prepared: Prepared) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(prepared, Path(folder) / "run")


def _cpu_s(work: Callable[[], object]) -> float:
    gc.collect()
    start_s = time.process_time()
    work()
    return time.process_time() - start_s
