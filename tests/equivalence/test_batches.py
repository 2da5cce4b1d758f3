"""Many sessions in one real batch: same tokens as alone, logits within a stated bound, no session touches another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from testbed.core.errors import ModelError
from testbed.models.shard import Shard, ShardInput
from testbed.models.source import ModelSource

from .tiny_models import CASES, LAYERS, PROMPT, generate_alone, pipeline, step

Tiny = Callable[[str], ModelSource]

# Rounding only: largest difference seen over all cases 2e-5 at logits of magnitude 6.
RELATIVE_BOUND = 2e-5
NEW_TOKENS = 9
PROMPTS = {
    0: PROMPT,
    1: [5],
    2: [7, 8, 9, 10, 11, 12, 13, 14, 15],
    3: PROMPT[:2],
    4: [20, 21, 22, 23, 24],
    5: [30, 31] * 10,
}
JOINS = {0: 0, 1: 0, 2: 2, 3: 3, 4: 5, 5: 5}
"""The iteration at which each session joins; it leaves after NEW_TOKENS."""


def run_churn(shards: Sequence[Shard]) -> tuple[dict[int, list[int]], dict[int, np.ndarray]]:
    """All sessions greedily through one batch an iteration, joining and leaving as JOINS says."""
    pending: dict[int, list[int]] = {}
    tokens: dict[int, list[int]] = {session: [] for session in PROMPTS}
    logits: dict[int, list[np.ndarray]] = {session: [] for session in PROMPTS}
    for iteration in range(max(JOINS.values()) + NEW_TOKENS):
        for session in (item for item, joins in JOINS.items() if joins == iteration):
            pending[session] = list(PROMPTS[session])
            for shard in shards:
                shard.open(session)
        for session, row in step(shards, pending, batched=True).items():
            logits[session].append(row)
            tokens[session].append(int(row.argmax()))
            pending[session] = tokens[session][-1:]
        for session in [item for item in pending if len(tokens[item]) == NEW_TOKENS]:
            del pending[session]
            for shard in shards:
                shard.close(session)
    return tokens, {session: np.array(rows) for session, rows in logits.items()}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_sessions_that_join_and_leave_get_what_they_get_alone(tiny: Tiny, case: str, attention: str) -> None:
    if case.startswith("gemma2") and attention == "sdpa":
        attention = "eager"  # its soft-capped scores have no sdpa path
    shards = pipeline(tiny(case), [1], attn_implementation=attention)
    tokens, logits = run_churn(shards)
    for session, prompt in PROMPTS.items():
        alone_tokens, alone_logits = generate_alone(shards, prompt, NEW_TOKENS, session=99)
        assert tokens[session] == alone_tokens
        bound = RELATIVE_BOUND * np.abs(alone_logits).max()
        assert np.abs(logits[session] - alone_logits).max() <= bound


@pytest.mark.parametrize("case", ["llama", "gemma3_text sliding", "gemma2 sliding"])
def test_a_batch_of_one_is_the_lone_run_bit_for_bit(tiny: Tiny, case: str) -> None:
    outputs = []
    for batched in (True, False):
        shard = Shard(tiny(case), start=0, stop=LAYERS)
        shard.open(4)
        rows = [shard.forward([ShardInput(session=4, tokens=part)], batched=batched) for part in (PROMPT, [8], [9])]
        outputs.append(np.array(rows))
    assert np.array_equal(outputs[0], outputs[1])


@pytest.mark.parametrize("case", ["llama", "mistral sliding"])
def test_places_in_the_store_do_not_change_results(tiny: Tiny, case: str) -> None:
    """The same two sessions on a fresh shard, and on one whose store others have fragmented; order swapped too."""
    fresh, used = (Shard(tiny(case), start=0, stop=LAYERS) for _ in range(2))
    for session in range(10, 16):
        used.open(session)
    for part in range(3):
        used.forward([ShardInput(session=item, tokens=[item] * (item + part)) for item in range(10, 16)])
    for session in (10, 12, 14, 15):
        used.close(session)
    for shard in (fresh, used):
        shard.open(1)
        shard.open(2)
    for ids in ([PROMPT, [7] * 20], [[3], [4]], [[5], [6]]):
        pair = [ShardInput(session=number, tokens=part) for number, part in zip((1, 2), ids, strict=True)]
        expected = fresh.forward(pair)
        got = used.forward(pair)
        assert np.array_equal(np.array(expected), np.array(got))


def test_chunked_prefill_next_to_decode_steps(tiny: Tiny) -> None:
    """A prompt in pieces beside others' decode steps: rows of different n with history, in one batch."""
    shards = pipeline(tiny("mistral sliding"), [2])
    prompt = list(range(3, 33))
    whole = generate_alone(shards, prompt, 1)[1][0]
    for shard in shards:
        for session in (1, 2):
            shard.open(session)
    step(shards, {1: [4, 5, 6]}, batched=True)
    for start, stop in ((0, 4), (4, 19), (19, 30)):
        outputs = step(shards, {1: [9], 2: prompt[start:stop]}, batched=True)
    assert np.abs(outputs[2] - whole).max() <= RELATIVE_BOUND * np.abs(whole).max()


def test_a_hostile_session_spoils_only_itself(tiny: Tiny) -> None:
    """NaN hidden states from one device, while its places pad and neighbour the others'."""
    source = tiny("llama")
    back = Shard(source, start=1, stop=LAYERS)
    rng = np.random.default_rng(5)
    good = [rng.normal(size=(n, 32)).astype(np.float32) for n in (3, 9)]
    bad = np.full((4, 32), np.nan, dtype=np.float32)
    for session in range(3):
        back.open(session)
    for iteration in range(3):
        rows = [row if iteration == 0 else row[:1] for row in (bad, *good)]  # decode steps of unequal histories
        outputs = back.forward([ShardInput(session=item, hidden=row) for item, row in enumerate(rows)])
    assert np.isnan(outputs[0]).all()
    assert np.isfinite(np.array(outputs[1:])).all()
    back.close(0)
    back.open(7)  # takes over the places that held NaN
    again = back.forward([ShardInput(session=item, hidden=good[0]) for item in (1, 7)])
    assert np.isfinite(np.array(again)).all()


@pytest.mark.parametrize("length", range(14, 24))
def test_a_sliding_session_keeps_what_it_still_sees(tiny: Tiny, length: int) -> None:
    """Blocks that a window has left are given to others; those it still covers are not."""
    source = tiny("mistral sliding")
    prompt = [3 + index for index in range(length)]
    tokens, logits = generate_alone(pipeline(source, [1]), prompt, 6)
    shards = pipeline(source, [1])
    pending, got = prompt, []
    for shard in shards:
        shard.open(1)
    for iteration in range(6):
        got.append(step(shards, {1: pending}, batched=False)[1])
        pending = [tokens[iteration]]
        for shard in shards:
            shard.open(100 + iteration)
        step(shards, {100 + iteration: [90] * 40}, batched=False)  # a newcomer that wants places
    assert np.array_equal(np.array(got), logits)


def test_results_come_in_the_order_of_the_inputs(tiny: Tiny) -> None:
    front = Shard(tiny("llama"), start=0, stop=1)
    for session in range(3):
        front.open(session)
    outputs = front.forward([ShardInput(session=item, tokens=[item + 5] * (3 - item)) for item in (2, 0, 1)])
    assert [row.shape for row in outputs] == [(1, 32), (3, 32), (2, 32)]
    assert all(row.dtype == np.float32 for row in outputs)
    single = front.forward([ShardInput(session=item, tokens=[9]) for item in (0, 1, 2)])
    assert [row.shape for row in single] == [(1, 32)] * 3
    assert [front.length(item) for item in range(3)] == [4, 3, 2]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([ShardInput(session=9, tokens=[3])], "not open"),
        ([ShardInput(session=1, tokens=[3]), ShardInput(session=1, tokens=[4])], "twice"),
        ([ShardInput(session=1, tokens=[])], "token ids"),
        ([ShardInput(session=1, hidden=np.zeros((1, 32), np.float32))], "token ids"),
        ([ShardInput(session=1, tokens=[96])], "vocabulary"),
        ([ShardInput(session=1, tokens=[-1])], "vocabulary"),
        ([ShardInput(session=1, tokens=[3] * 65)], "grows beyond"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_and_change_nothing(
    tiny: Tiny, inputs: list[ShardInput], message: str
) -> None:
    front = Shard(tiny("gpt2"), start=0, stop=2)
    front.open(1)
    front.forward([ShardInput(session=1, tokens=[3, 4])])
    with pytest.raises(ModelError, match=message):
        front.forward(inputs)
    assert front.length(1) == 2


@pytest.mark.parametrize("shape", [(32,), (0, 32), (2, 31)])
def test_hidden_states_of_the_wrong_shape_are_refused(tiny: Tiny, shape: tuple[int, ...]) -> None:
    back = Shard(tiny("llama"), start=2, stop=LAYERS)
    back.open(1)
    with pytest.raises(ModelError, match="hidden states"):
        back.forward([ShardInput(session=1, hidden=np.zeros(shape, np.float32))])


def test_sessions_open_and_close(tiny: Tiny) -> None:
    shard = Shard(tiny("llama"), start=0, stop=1)
    shard.open(3)
    shard.open(1)
    assert shard.sessions == (3, 1)
    with pytest.raises(ModelError, match="already open"):
        shard.open(3)
    shard.close(3)
    assert shard.sessions == (1,)
    with pytest.raises(ModelError, match="not open"):
        shard.close(3)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_steps_abreast_are_the_lone_steps_bit_for_bit(tiny: Tiny, case: str, dtype: str) -> None:
    alone, abreast = (pipeline(tiny(case), [1], dtype=dtype) for _ in range(2))
    prompts = {0: PROMPT, 1: [5], 2: PROMPT[:2], 3: [30, 31] * 6}
    for shards in (alone, abreast):
        for session in prompts:
            for shard in shards:
                shard.open(session)
    pending = {session: list(prompt) for session, prompt in prompts.items()}
    for shards in (alone, abreast):
        for session, tokens in pending.items():
            step(shards, {session: tokens}, batched=False)
    for number in range(NEW_TOKENS):
        pending = {session: [(7 * number + 3 * session) % 32] for session in prompts}
        together = step(abreast, pending, batched=False)
        for session, tokens in pending.items():
            (one,) = step(alone, {session: tokens}, batched=False).values()
            assert np.array_equal(one, together[session])
