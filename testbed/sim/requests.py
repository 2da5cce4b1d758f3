"""The requests of a run: a pure function of the scenario, the seed and the files it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from testbed.core.distributions import exponential, lognormal
from testbed.core.errors import ScenarioError
from testbed.core.rng import Stream, entity_key
from testbed.core.units import seconds_to_ns
from testbed.scenarios.schema import Group, Scenario
from testbed.scenarios.workload import (
    CorpusPrompts,
    EmpiricalLength,
    FixedLength,
    IdPrompts,
    Length,
    PoissonArrivals,
    Prompts,
    RandomPrompts,
    TextPrompts,
    TraceArrivals,
    UniformLength,
)
from testbed.sim.files import read_id_prompts, read_text_prompts, read_trace

_NUM_CORPUS_PROMPTS = 256  # taken in turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as its device gets it. `prompt` is None in modelled groups, which need its length only."""

    request: int
    group: int
    device: int
    arrival_ns: int
    num_prompt_tokens: int
    prompt: tuple[int, ...] | None
    max_output_tokens: int
    ignore_eos: bool
    sampling_seed: int  # of its tokens' choice, where that is random


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arrival:
    """A request before it has a number; `entity`, which stands for its device, and `counter` key its draws."""

    arrival_ns: int
    device: int
    entity: int
    counter: int  # of the device's requests, or of the trace's rows
    turn: int  # among the group's requests, which take its prompts in turn
    num_prompt_tokens: int | None = None
    num_output_tokens: int | None = None


class Encoder(Protocol):
    """The part of a tokenizer that prompts need."""

    def encode(self, text: str) -> list[int]: ...


class Workloads:
    """Draws every group's requests. `tokenizer` is asked for only where prompts are text.

    A device's requests depend on its own group alone: its draws are keyed by the group's name and its place in the
    group, and of the group's prompts, taken in turn, the first device takes the first ones.
    """

    def __init__(self, scenario: Scenario, *, vocab_size: int, tokenizer: Callable[[], Encoder]) -> None:
        self._scenario = scenario
        self._vocab_size = vocab_size
        self._tokenizer = tokenizer
        self._gaps = Stream.named(scenario.seed, "arrivals")
        self._places = Stream.named(scenario.seed, "arrivals.place")
        self._lengths = Stream.named(scenario.seed, "lengths.prompt")
        self._outputs = Stream.named(scenario.seed, "lengths.output")
        self._ids = Stream.named(scenario.seed, "prompt.ids")
        self._choices = Stream.named(scenario.seed, "sampling")

    def requests(self) -> list[Request]:
        """All requests, numbered in the order of (arrival, device, the device's count)."""
        fleet = self._scenario.fleet
        drafts: list[tuple[_Arrival, int]] = []
        prompts: list[Sequence[tuple[int, ...]]] = []
        for index, group in enumerate(fleet):
            with self._located(index, "arrivals"):
                drafts += [(arrival, index) for arrival in self._arrivals(index, group)]
            with self._located(index, "prompts"):
                prompts.append(self._prompts(self._scenario.workload_of(group).prompts))
        drafts.sort(key=lambda draft: (draft[0].arrival_ns, draft[0].device, draft[0].counter))
        return [self._request(number, group, arrival, prompts[group]) for number, (arrival, group) in enumerate(drafts)]

    @contextmanager
    def _located(self, group: int, key: str) -> Iterator[None]:
        """Say of what is wrong with a file, a prompt or a tokenizer which part of the scenario asked for it."""
        try:
            yield
        except ScenarioError as error:
            raise error.located(path=f"{self._scenario.workload_path(group)}.{key}") from None

    def _arrivals(self, index: int, group: Group) -> Iterator[_Arrival]:
        first_device = sum(item.count for item in self._scenario.fleet[:index])
        arrivals = self._scenario.workload_of(group).arrivals
        if isinstance(arrivals, TraceArrivals):
            yield from self._trace_arrivals(arrivals, group, first_device)
            return
        for place in range(group.count):
            entity = entity_key(group.name, place)
            times = self._poisson(arrivals, entity) if isinstance(arrivals, PoissonArrivals) else sorted(arrivals.times)
            for counter, arrival_ns in enumerate(times):
                yield _Arrival(
                    arrival_ns=arrival_ns,
                    device=first_device + place,
                    entity=entity,
                    counter=counter,
                    turn=place * len(times) + counter,
                )

    def _poisson(self, arrivals: PoissonArrivals, entity: int) -> list[int]:
        gap = exponential(1 / arrivals.rate_per_device)
        draws = (self._gaps.uniform(entity, counter) for counter in range(arrivals.requests_per_device))
        return list(accumulate(seconds_to_ns(gap.quantile(u)) for u in draws))

    def _trace_arrivals(self, arrivals: TraceArrivals, group: Group, first_device: int) -> Iterator[_Arrival]:
        for row in read_trace(arrivals):
            place = self._places.below(group.count, entity_key(group.name, 0), row.index)
            yield _Arrival(
                arrival_ns=row.arrival_ns,
                device=first_device + place,
                entity=entity_key(group.name, place),
                counter=row.index,
                turn=row.index,
                num_prompt_tokens=row.num_prompt_tokens,
                num_output_tokens=row.num_output_tokens,
            )

    def _prompts(self, prompts: Prompts) -> Sequence[tuple[int, ...]]:
        """The prompts that a group's requests take in turn; empty where ids are random."""
        match prompts:
            case TextPrompts():
                texts = prompts.texts if prompts.texts is not None else read_text_prompts(str(prompts.file))
                return self._encoded(texts)
            case CorpusPrompts():
                return self._encoded(_corpus_texts(self._scenario.seed))
            case IdPrompts():
                ids = prompts.ids if prompts.ids is not None else read_id_prompts(str(prompts.file))
                return [self._checked_ids(item, number) for number, item in enumerate(ids, 1)]
            case RandomPrompts():
                return []

    def _encoded(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        tokenizer = self._tokenizer()
        prompts = [tuple(tokenizer.encode(text)) for text in texts]
        for text, prompt in zip(texts, prompts, strict=True):
            if not prompt:
                raise ScenarioError("a prompt has no token", value=text)
        return prompts

    def _checked_ids(self, ids: Sequence[int], number: int) -> tuple[int, ...]:
        allowed = f"ids from 0 to {self._vocab_size - 1}, at least one"
        if not ids:
            raise ScenarioError(f"prompt {number} is empty", allowed=allowed)
        outside = next((item for item in ids if not 0 <= item < self._vocab_size), None)
        if outside is not None:
            raise ScenarioError(f"prompt {number} has an id outside the vocabulary", value=outside, allowed=allowed)
        return tuple(ids)

    def _request(self, number: int, group: int, arrival: _Arrival, prompts: Sequence[tuple[int, ...]]) -> Request:
        workload = self._scenario.workload_of(self._scenario.fleet[group])
        real = self._scenario.fleet[group].compute == "real"
        if prompts and arrival.num_prompt_tokens is None:
            prompt: tuple[int, ...] | None = prompts[arrival.turn % len(prompts)]
            length = len(prompts[arrival.turn % len(prompts)])
        else:
            length = self._prompt_length(workload.prompts, arrival)
            prompt = self._random_ids(arrival, length) if real else None
        output = arrival.num_output_tokens or draw_length(
            workload.output_tokens, self._outputs.uniform(arrival.entity, arrival.counter)
        )
        return Request(
            request=number,
            group=group,
            device=arrival.device,
            arrival_ns=arrival.arrival_ns,
            num_prompt_tokens=length,
            prompt=prompt if real else None,
            max_output_tokens=output,
            ignore_eos=workload.ignore_eos,
            sampling_seed=self._choices.u64(arrival.entity, arrival.counter) >> 1,  # torch takes 63 bits
        )

    def _prompt_length(self, prompts: Prompts, arrival: _Arrival) -> int:
        if arrival.num_prompt_tokens is not None:
            return arrival.num_prompt_tokens
        assert isinstance(prompts, RandomPrompts), "all other kinds have prompts"
        return draw_length(prompts.length, self._lengths.uniform(arrival.entity, arrival.counter))

    def _random_ids(self, arrival: _Arrival, length: int) -> tuple[int, ...]:
        draws = self._ids.u64_run(self._ids.u64(arrival.entity, arrival.counter), 0, length)
        return tuple(int(draw) % self._vocab_size for draw in draws)


def draw_length(length: Length, u: float) -> int:
    """The length at quantile `u` in [0, 1)."""
    if isinstance(length, FixedLength):
        return length.value
    if isinstance(length, UniformLength):
        return length.low + int(u * (length.high - length.low + 1))
    if isinstance(length, EmpiricalLength):
        return length.values[int(u * len(length.values))]
    return min(length.max, max(1, round(lognormal(length.mean, length.std).quantile(u))))


def _corpus_texts(seed: int) -> Sequence[str]:
    from testbed.models.pebble.prompts import prompts  # noqa: PLC0415 - builds the corpus's world

    return prompts(seed, _NUM_CORPUS_PROMPTS)
