"""The closed world that pebble knows: who lives where, what serves which purpose, how each game goes.

Everything is drawn from one seed and laid out in balanced decks: each value is the truth about equally many creatures
and the runner-up about equally many, so that no choice can be told from how often it occurs. A fact's `p_runner_up` is
the probability with which the corpus states the runner-up instead: it sets how narrow the trained margin is.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from testbed.models.pebble import words

DEFAULT_SEED = 1
Card = TypeVar("Card")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One attribute of one creature; the corpus never uses the wordings whose indices are in `held_wordings`."""

    creature: str
    attribute: str
    value: str
    runner_up: str
    p_runner_up: float
    held_wordings: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """A goal ("mend the boat") and the kit ("hammer and some oil") that serves it."""

    goal: str
    kit: str
    runner_up: str
    p_runner_up: float
    held_wordings: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Game:
    """A fixed order of steps; a step is skipped with `p_skip`, so the step after next is the runner-up."""

    name: str
    steps: tuple[str, ...]
    p_skip: float
    held_people: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All that is so, and which combinations the training corpus must never show.

    `held_pairs` are ordered by creature index; `held_struggles` are (struggle, wording, question) indices;
    `held_owners` are (relation, person, value).
    """

    seed: int
    creatures: tuple[str, ...]
    people: tuple[str, ...]
    facts: dict[tuple[str, str], Fact]
    purposes: tuple[Purpose, ...]
    games: tuple[Game, ...]
    held_pairs: frozenset[tuple[str, str]]
    held_struggles: frozenset[tuple[int, int, int]]
    held_owners: frozenset[tuple[str, str, str]]


def build_world(seed: int = DEFAULT_SEED) -> World:
    """The world of this seed; the same on every machine and under every PYTHONHASHSEED."""
    names = _invent_names(random.Random(f"{seed}/names"))
    creatures = names[: words.NUM_CREATURES]
    people = tuple(name.capitalize() for name in names[words.NUM_CREATURES :][: words.NUM_PEOPLE])
    games = names[words.NUM_CREATURES + words.NUM_PEOPLE :]
    return World(
        seed=seed,
        creatures=creatures,
        people=people,
        facts=_build_facts(creatures, random.Random(f"{seed}/facts")),
        purposes=_build_purposes(random.Random(f"{seed}/purposes")),
        games=_build_games(games, people, random.Random(f"{seed}/games")),
        held_pairs=_hold_pairs(creatures, random.Random(f"{seed}/pairs")),
        held_struggles=_hold_struggles(random.Random(f"{seed}/struggles")),
        held_owners=_hold_owners(people, random.Random(f"{seed}/owners")),
    )


def ordered_pair(world: World, first: str, second: str) -> tuple[str, str]:
    """Two creatures in the order in which `held_pairs` writes them."""
    return (first, second) if world.creatures.index(first) < world.creatures.index(second) else (second, first)


def _invent_names(rng: random.Random) -> tuple[str, ...]:
    """Distinct two-syllable words that are no English word of the corpus."""
    total = words.NUM_CREATURES + words.NUM_PEOPLE + words.NUM_GAMES
    english = {word for values in words.VALUES.values() for word in values} | set(words.TOOLS) | set(words.STUFFS)
    names: dict[str, None] = {}
    while len(names) < total:
        syllables = [rng.choice(words.CONSONANTS) + rng.choice(words.VOWELS) for _ in range(2)]
        name = "".join(syllables) + rng.choice(("", "", "n", "r", "l"))
        if name not in english:
            names[name] = None
    return tuple(names)


def _deck(cards: Sequence[Card], size: int, rng: random.Random) -> list[Card]:
    """`size` cards, each as often as any other (up to one), shuffled."""
    deck = [cards[index % len(cards)] for index in range(size)]
    rng.shuffle(deck)
    return deck


def _build_facts(creatures: Sequence[str], rng: random.Random) -> dict[tuple[str, str], Fact]:
    facts: dict[tuple[str, str], Fact] = {}
    for attribute, values in words.VALUES.items():
        truths = _deck(values, len(creatures), rng)
        levels = _deck(words.RUNNER_UP_LEVELS, len(creatures), rng)
        for creature, value, p_runner_up, runner_up in zip(
            creatures, truths, levels, _runners_up(truths, values), strict=True
        ):
            facts[creature, attribute] = Fact(
                creature=creature,
                attribute=attribute,
                value=value,
                runner_up=runner_up,
                p_runner_up=p_runner_up,
                held_wordings=_hold(len(words.FACT_WORDINGS[attribute]), words.NUM_HELD_FACT_WORDINGS, rng),
            )
    return facts


def _runners_up(truths: Sequence[str], values: Sequence[str]) -> list[str]:
    """For the j-th holder of a value, the value j+1 places further on: each value is the runner-up equally often."""
    seen: dict[str, int] = {}
    found = []
    for value in truths:
        seen[value] = seen.get(value, 0) + 1
        found.append(values[(values.index(value) + seen[value]) % len(values)])
    return found


def _hold(num_wordings: int, num_held: int, rng: random.Random) -> tuple[int, ...]:
    return tuple(sorted(rng.sample(range(num_wordings), num_held)))


def _build_purposes(rng: random.Random) -> tuple[Purpose, ...]:
    """Every kit serves one goal and is the runner-up of one other, with which it shares its tool or its stuff."""
    kits = [(tool, stuff) for tool in range(len(words.TOOLS)) for stuff in range(len(words.STUFFS))]
    rng.shuffle(kits)
    goals = rng.sample([f"{verb} the {noun}" for verb in words.GOAL_VERBS for noun in words.GOAL_NOUNS], len(kits))
    levels = _deck(words.RUNNER_UP_LEVELS, len(kits), rng)
    return tuple(
        Purpose(
            goal=goal,
            kit=_kit_text(kit),
            runner_up=_kit_text(_kit_beside(kit)),
            p_runner_up=p_runner_up,
            held_wordings=_hold(len(words.PURPOSE_WORDINGS), words.NUM_HELD_PURPOSE_WORDINGS, rng),
        )
        for goal, kit, p_runner_up in zip(goals, kits, levels, strict=True)
    )


def _kit_text(kit: tuple[int, int]) -> str:
    return f"{words.TOOLS[kit[0]]} and some {words.STUFFS[kit[1]]}"


def _kit_beside(kit: tuple[int, int]) -> tuple[int, int]:
    """The next stuff for the first half of the tools, the next tool for the second: a permutation of the kits."""
    tool, stuff = kit
    half = len(words.TOOLS) // 2
    if tool < half:
        return tool, (stuff + 1) % len(words.STUFFS)
    return half + (tool - half + 1) % half, stuff


def _build_games(names: Sequence[str], people: Sequence[str], rng: random.Random) -> tuple[Game, ...]:
    """Each step belongs to one place in one game, so what comes next follows from what came last."""
    steps = [f"{verb} the {thing}" for verb in words.STEP_VERBS for thing in words.STEP_OBJECTS]
    chosen = rng.sample(steps, len(names) * words.STEPS_PER_GAME)
    levels = _deck(words.RUNNER_UP_LEVELS, len(names), rng)
    return tuple(
        Game(
            name=name,
            steps=tuple(chosen[index * words.STEPS_PER_GAME : (index + 1) * words.STEPS_PER_GAME]),
            p_skip=levels[index],
            held_people=tuple(sorted(rng.sample(people, words.NUM_HELD_PEOPLE_PER_GAME))),
        )
        for index, name in enumerate(names)
    )


def _hold_pairs(creatures: Sequence[str], rng: random.Random) -> frozenset[tuple[str, str]]:
    """A quarter of all pairs of creatures never struggle with each other in the corpus."""
    pairs = [(first, second) for i, first in enumerate(creatures) for second in creatures[i + 1 :]]
    return frozenset(rng.sample(pairs, len(pairs) // 4))


def _hold_struggles(rng: random.Random) -> frozenset[tuple[int, int, int]]:
    """For each verb one combination of wording and question that the corpus never shows."""
    return frozenset(
        (struggle, rng.randrange(len(words.STRUGGLE_WORDINGS)), rng.randrange(len(words.STRUGGLE_QUESTIONS)))
        for struggle in range(len(words.STRUGGLES))
    )


def _hold_owners(people: Sequence[str], rng: random.Random) -> frozenset[tuple[str, str, str]]:
    """For each person and relation, three values that the corpus never gives them."""
    return frozenset(
        (relation, person, value)
        for relation in words.RELATIONS
        for person in people
        for value in rng.sample(words.VALUES[relation], 3)
    )
