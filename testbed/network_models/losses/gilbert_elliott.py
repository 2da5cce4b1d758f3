"""Gilbert and Elliott's channel: losses come in bursts."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from testbed.core.errors import ScenarioError
from testbed.core.rng import Draws, U64Array, probability_u32
from testbed.network_models.losses.ordered import OrderedLoss
from testbed.network_models.origin import Origin
from testbed.network_models.rates.segments import Rate
from testbed.scenarios.base import Probability, as_pydantic
from testbed.scenarios.pieces import LossConfig

BoolArray = npt.NDArray[np.bool_]


class _Law(NamedTuple):
    """Of 2**32 draws, those that make the chain go to bad or stay there, be lost in either state, and start bad."""

    to_bad: int
    stays_bad: int
    when_good: int
    when_bad: int
    starts_bad: int

    @property
    def loses_bad_alone(self) -> bool:
        return self.when_good == 0 and self.when_bad == 1 << 32


class GilbertElliottLoss(OrderedLoss):
    """A chain of two states, good and bad, steps once a transmission; each state loses with its own probability.

    Sources: Gilbert, Bell System Technical Journal 39 (1960); Elliott, ibid. 42 (1963). From good it goes to bad with
    probability p, from bad to good with r, and starts in its stationary law. Packets that the queue drops are no
    transmissions; while nothing is sent the chain stands still.

    Draws are keyed by the transmission's place on the link. The state after place k is good or bad by one draw alone
    where that draw falls outside both laws of stay, so whole blocks are decided at once.
    """

    class Config(LossConfig):
        """By `p` and `r`, or by the mean loss and the mean number of transmissions that a bad state lasts.

        With the states' usual losses, 0 and 1, that number is the mean length of a burst of losses.
        """

        follows_order: ClassVar[bool] = True
        kind: Literal["gilbert-elliott"] = "gilbert-elliott"
        p: Probability | None = None  # good to bad
        r: Probability | None = None  # bad to good
        mean_loss: Probability | None = None
        mean_burst: float | None = Field(default=None, ge=1)
        loss_good: Probability = 0.0
        loss_bad: Probability = 1.0

        @model_validator(mode="after")
        def _is_one_law(self) -> Self:
            given = [key for key in ("p", "r", "mean_loss", "mean_burst") if getattr(self, key) is not None]
            if given not in (["p", "r"], ["mean_loss", "mean_burst"]):
                problem = f"the law is given by {' and '.join(given) or 'nothing'}"
                raise as_pydantic(ScenarioError(problem, allowed="p and r; or mean_loss and mean_burst"))
            if self.r == 0:
                raise as_pydantic(ScenarioError("no way back to good", path="r", value=0, allowed="more than 0"))
            if self.loss_good > self.loss_bad:
                allowed = f"at most loss_bad of {self.loss_bad:g}"
                raise as_pydantic(
                    ScenarioError("good loses more than bad", path="loss_good", value=self.loss_good, allowed=allowed)
                )
            if self.mean_loss is not None:
                self._check_means(self.mean_loss, self.mean_burst or 1.0)
            return self

        def _check_means(self, mean_loss: float, mean_burst: float) -> None:
            """With 1/n back to good, the chain is bad at most n / (n + 1) of the time: when good never lasts."""
            most = (self.loss_good + self.loss_bad * mean_burst) / (1 + mean_burst)
            if not self.loss_good <= mean_loss <= most:
                allowed = f"{self.loss_good:g} (loss_good) to {most:.6g} with a mean_burst of {mean_burst:g}"
                problem = "no chain has this mean loss and burst length"
                raise as_pydantic(ScenarioError(problem, path="mean_loss", value=mean_loss, allowed=allowed))

        @property
        def chain(self) -> tuple[float, float]:
            """P and r."""
            if self.p is not None and self.r is not None:
                return self.p, self.r
            assert self.mean_loss is not None, "checked above"
            assert self.mean_burst is not None, "checked above"
            if self.mean_loss == self.loss_good:
                return 0.0, 1 / self.mean_burst
            p_bad = (self.mean_loss - self.loss_good) / (self.loss_bad - self.loss_good)
            return min(1.0, p_bad / (1 - p_bad) / self.mean_burst), 1 / self.mean_burst

    __slots__ = ("_is_bad", "_law", "_losses", "_states")

    def __init__(self, config: Config, origin: Origin, rate: Rate) -> None:
        super().__init__()
        law = self._law = _law_of(config)
        self._states = origin.draws("loss.state")
        self._losses = None if law.loses_bad_alone else origin.draws("loss")
        # At the next block's first transmission
        self._is_bad = origin.draws("loss.start").u64(0) >> 32 < law.starts_bad

    def _decide(self, first: int, count: int) -> list[int]:
        bad = self._bad_states(first, count)
        lost = bad
        if self._losses is not None:
            when_bad, when_good = np.uint64(self._law.when_bad), np.uint64(self._law.when_good)
            lost = _u32_run(self._losses, first, count) < np.where(bad, when_bad, when_good)
        found: list[int] = (first + np.flatnonzero(lost)).tolist()
        return found

    def _bad_states(self, first: int, count: int) -> BoolArray:
        """Whether each of these transmissions finds the chain bad. Draw k decides the state after transmission k."""
        draws = _u32_run(self._states, first, count)
        becomes_bad, stays_bad = draws < np.uint64(self._law.to_bad), draws < np.uint64(self._law.stays_bad)
        # Both draws alike: bad or good whatever was. Else the state is kept, or where p > 1 - r changed.
        is_set = becomes_bad == stays_bad
        last_set = np.maximum.accumulate(np.where(is_set, np.arange(1, count + 1), 0))
        value = np.concatenate(([self._is_bad], becomes_bad))[last_set]
        if self._law.to_bad > self._law.stays_bad:
            num_changes = np.concatenate(([0], np.cumsum(~is_set)))
            value ^= (num_changes[1:] - num_changes[last_set]) % 2 == 1
        states = np.concatenate(([self._is_bad], value))
        self._is_bad = bool(states[-1])
        return states[:-1]


@lru_cache(maxsize=256)  # links of one profile share it
def _law_of(config: GilbertElliottLoss.Config) -> _Law:
    p, r = config.chain
    return _Law(*(probability_u32(share) for share in (p, 1 - r, config.loss_good, config.loss_bad, p / (p + r))))


def _u32_run(draws: Draws, first: int, count: int) -> U64Array:
    return draws.u64_run(first, count) >> np.uint64(32)
