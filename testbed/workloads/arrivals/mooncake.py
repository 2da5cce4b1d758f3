"""Arrivals as traces of the Mooncake project have them."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from testbed.core.rng import I64Array
from testbed.scenarios.base import FileName
from testbed.scenarios.workload import ArrivalConfig
from testbed.workloads.members import Members
from testbed.workloads.mooncake_file import MooncakeRow, read_mooncake
from testbed.workloads.openings import Openings, dealt

BLOCK_TOKENS = 512
_LEAST_BLOCKS = 2  # of a row that others continue: one alone is perhaps a system prompt that all share


class Mooncake:
    """A JSONL file: timestamp in ms, input_length, output_length, and hash_ids, one for each 512 tokens of the prompt.

    A row whose first hashes are all full blocks of an earlier row's prompt, two at least, is the next turn of that
    row's session: it goes to the same device, and the blocks they share are its history, as long as something of its
    prompt is new. Of several such rows the one with the longest prompt counts, of these the latest. [our own reading:
    the traces name no sessions]
    """

    class Config(ArrivalConfig):
        kind: Literal["mooncake"] = "mooncake"
        file: FileName
        limit: int | None = Field(default=None, ge=1)

        @property
        def sets_lengths(self) -> bool:
            return True

    def __init__(self, config: Config) -> None:
        self._config = config

    def expected_count(self, members: Members) -> None:
        """The file says it."""

    def openings(self, members: Members) -> Openings:
        rows = read_mooncake(self._config.file, self._config.limit)
        session, turn, history = _sessions(rows)
        place, counter = dealt(members, len(rows))
        return Openings(
            place=np.where(session >= 0, place[session], place),
            counter=counter,
            arrival_ns=np.array([row.arrival_ns for row in rows], dtype=np.int64),
            prompt_tokens=np.array([row.input_length for row in rows], dtype=np.int64),
            output_tokens=np.array([row.output_length for row in rows], dtype=np.int64),
            history_tokens=history,
            session=session,
            turn=turn,
        )


def _sessions(rows: list[MooncakeRow]) -> tuple[I64Array, I64Array, I64Array]:
    """Of every row the one that opened its session, itself where it has none before it, its turn and its history."""
    session, turn = np.arange(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=np.int64)
    history = np.zeros(len(rows), dtype=np.int64)
    latest: dict[tuple[int, int], int] = {}  # number of a prompt's full blocks and the last one's hash -> latest row
    for number, row in enumerate(rows):
        blocks, full = row.hash_ids, row.input_length // BLOCK_TOKENS
        for shared in range(min(len(blocks), (row.input_length - 1) // BLOCK_TOKENS), _LEAST_BLOCKS - 1, -1):
            before = latest.get((shared, blocks[shared - 1]))
            if before is not None:
                session[number], turn[number] = session[before], turn[before] + 1
                history[number] = shared * BLOCK_TOKENS
                break
        if 0 < full <= len(blocks):
            latest[full, blocks[full - 1]] = number
    return session, turn, history
