"""Text prompts for workloads: openings about pebble's world whose wording or combination its corpus never shows."""

from __future__ import annotations

import random

from testbed.models.pebble import words
from testbed.models.pebble.corpus import fact_sentence
from testbed.models.pebble.tasks import Item, build_items
from testbed.models.pebble.world import World, build_world

MAX_FACTS_BEFORE = 4


def prompts(seed: int, count: int) -> tuple[str, ...]:
    """`count` prompts of roughly 5 to 50 tokens; prompt i depends on `seed` and i alone."""
    world = build_world()
    items = build_items(world)
    return tuple(_prompt(world, items, random.Random(f"{seed}/prompt/{index}")) for index in range(count))


def _prompt(world: World, items: tuple[Item, ...], rng: random.Random) -> str:
    """A held-out context, half of the time after some sentences about a creature."""
    context = rng.choice(items).context
    if rng.random() < 0.5:
        return context
    creature = rng.choice(world.creatures)
    attributes = rng.sample(list(words.VALUES), rng.randrange(1, MAX_FACTS_BEFORE + 1))
    told = [_held_sentence(world, creature, attribute, rng) for attribute in attributes]
    return " ".join([*told, context])


def _held_sentence(world: World, creature: str, attribute: str, rng: random.Random) -> str:
    fact = world.facts[creature, attribute]
    return fact_sentence(creature, attribute, rng.choice(fact.held_wordings), fact.value) + "."
