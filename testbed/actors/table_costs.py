"""A layer's times from a measured table: integers interpolated by integers [our design].

Times never fall along an axis: where a measurement does, the largest so far stands. Between the entries x0 and x1 a
line has ``v0 + (v1 - v0) (x - x0) // (x1 - x0)``; a grid takes that along its columns in the two rows beside, then
between the two. Below the first entry the first stands, so less work never takes longer. Above the last a
ScenarioError names the axis and its range, or, where the profile says `extrapolate`, the line of the last two goes on.

A sequence with one new token is a decode step, any other a prefill. A layer takes

    layer(tokens) + sum of prefill_attention(new, past) + steps(number, ceil(mean context)) + all-reduces

with `decode_attention` for the steps, or where a prefill runs in the same layer the larger of that and
`decode_beside_prefill`. Attention that the table lacks is the roofline's, of all those sequences together. A pass adds
embedding, head and the table's overhead; the profile's kernel_overhead is inside what was measured.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate

from testbed.actors.profile_table import DecodeGrid, PrefillGrid, ProfileTable
from testbed.actors.roofline import ALL_REDUCES, Roofline
from testbed.core.errors import ScenarioError
from testbed.core.work import Work

Beyond = Callable[[str, int, int], None]  # told of an axis, a place on it and the last measured one


class Line:
    """Times along one axis."""

    __slots__ = ("axis", "beyond", "name", "times_ns")

    def __init__(self, name: str, axis: Sequence[int], times_ns: Sequence[int], beyond: Beyond) -> None:
        self.name = name
        self.axis = list(axis)
        self.times_ns = list(accumulate(times_ns, max))
        self.beyond = beyond

    def at(self, place: int) -> int:
        right = _right(self, place)
        return _between(self.axis, self.times_ns, right, place)


class Grid:
    """Times along two axes, the first one's rows."""

    __slots__ = ("columns", "rows")

    def __init__(
        self,
        names: tuple[str, str],
        axes: tuple[Sequence[int], Sequence[int]],
        times_ns: Sequence[Sequence[int]],
        beyond: Beyond,
    ) -> None:
        rising = accumulate(times_ns, lambda above, row: [max(pair) for pair in zip(above, row, strict=True)])
        self.rows = Line(names[0], axes[0], [0] * len(axes[0]), beyond)
        self.columns = [Line(names[1], axes[1], row, beyond) for row in rising]

    def at(self, row: int, column: int) -> int:
        right = _right(self.rows, row)
        if right == 0:
            return self.columns[0].at(column)
        left_ns, right_ns = self.columns[right - 1].at(column), self.columns[right].at(column)
        return _line(self.rows.axis[right - 1], self.rows.axis[right], left_ns, right_ns, row)


def _right(line: Line, place: int) -> int:
    """The entry at or after a place, 0 for what lies below all; beyond the last one the last, once allowed."""
    right = bisect_left(line.axis, place)
    if right < len(line.axis):
        return right
    line.beyond(line.name, place, line.axis[-1])
    return len(line.axis) - 1


def _between(axis: Sequence[int], times_ns: Sequence[int], right: int, place: int) -> int:
    if right == 0:
        return times_ns[0]
    return _line(axis[right - 1], axis[right], times_ns[right - 1], times_ns[right], place)


def _line(left: int, right: int, left_ns: int, right_ns: int, place: int) -> int:
    return left_ns + (right_ns - left_ns) * (place - left) // (right - left)


class TableKernels:
    """One model's kernels on one processor by what was measured; `reached` has each axis that was left, and how far."""

    load_size = 7

    def __init__(self, table: ProfileTable, roofline: Roofline, *, extrapolate: bool) -> None:
        self.overhead_ns = table.overhead_ns
        self.table = table
        self.reached: dict[str, int] = {}
        self._extrapolate = extrapolate
        self._roofline = roofline
        self._sends_apart = table.all_reduce == "apart"
        beyond = self._beyond
        self._layer = Line("layer.tokens", table.layer.tokens, table.layer.time_ns, beyond)
        self._prefill = _prefill_grid(table.prefill_attention, beyond)
        self._decode = _decode_grid("decode_attention", table.decode_attention, beyond)
        self._beside = _decode_grid("decode_beside_prefill", table.decode_beside_prefill, beyond)
        self._embedding = self._head = None
        if table.embedding is not None:
            self._embedding = Line("embedding.tokens", table.embedding.tokens, table.embedding.time_ns, beyond)
        if table.head is not None:
            self._head = Line("head.sequences", table.head.sequences, table.head.time_ns, beyond)

    def add(self, load: list[int], work: Work) -> None:
        """New tokens, prefills' attention in ns, prefills, steps, their contexts; what the roofline is asked for."""
        new, past = work.new_tokens, work.past_tokens
        load[0] += new
        if new == 1:
            load[3] += 1
            load[4] += past
        else:
            load[2] += 1
            load[1] += 0 if self._prefill is None else self._prefill.at(new, past)
        if (self._decode if new == 1 else self._prefill) is None:
            load[5] += past + 2 * new
            load[6] += new * past + new * (new + 1) // 2

    def layer_ns(self, load: Sequence[int]) -> int:
        """One layer with all that sequences bring to it, as `add` counts it."""
        tokens, prefill_ns, num_prefills, num_steps, contexts, positions, pairs = load
        attention_ns = prefill_ns + self._roofline.attention_ns(positions, pairs)
        if num_steps and self._decode is not None:
            attention_ns += self._steps_ns(num_steps, -(-contexts // num_steps), bool(num_prefills))
        sent_ns = ALL_REDUCES * self._roofline.all_reduce_ns(tokens) if self._sends_apart else 0
        return self.matrices_ns(tokens) + attention_ns + sent_ns

    def matrices_ns(self, tokens: int) -> int:
        """One layer without its attention."""
        return self._layer.at(tokens)

    def embedding_ns(self, num_tokens: int) -> int:
        if self._embedding is None or not num_tokens:
            return self._roofline.embedding_ns(num_tokens)
        return self._embedding.at(num_tokens)

    def head_ns(self, num_rows: int) -> int:
        if self._head is None or not num_rows:
            return self._roofline.head_ns(num_rows)
        return self._head.at(num_rows)

    def _steps_ns(self, number: int, context: int, beside_prefill: bool) -> int:
        assert self._decode is not None, "the caller has looked"
        alone_ns = self._decode.at(number, context)
        if not beside_prefill or self._beside is None:
            return alone_ns
        return max(alone_ns, self._beside.at(number, context))

    def _beyond(self, axis: str, place: int, last: int) -> None:
        if not self._extrapolate:
            raise ScenarioError(
                f"{self.table.name} has no times for so many: {axis}", value=place,
                allowed=f"up to {last}, or extrapolate: true",
            )  # fmt: skip
        self.reached[axis] = max(place, self.reached.get(axis, 0))


def _prefill_grid(grid: PrefillGrid | None, beyond: Beyond) -> Grid | None:
    if grid is None:
        return None
    names = ("prefill_attention.new_tokens", "prefill_attention.past_tokens")
    return Grid(names, (grid.new_tokens, grid.past_tokens), grid.time_ns, beyond)


def _decode_grid(name: str, grid: DecodeGrid | None, beyond: Beyond) -> Grid | None:
    if grid is None:
        return None
    names = (f"{name}.sequences", f"{name}.context_tokens")
    return Grid(names, (grid.sequences, grid.context_tokens), grid.time_ns, beyond)
