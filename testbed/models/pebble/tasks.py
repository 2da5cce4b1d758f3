"""Choice items of five kinds, held out by construction: their wording or combination never occurs in the corpus.

| kind | mirrors | what is held out |
|---|---|---|
| continuation | HellaSwag | this person playing this game |
| facts | ARC | this wording of this fact |
| purpose | PIQA | this wording of this goal |
| yes_no | BoolQ | this person having this value |
| pronoun | Winogrande | this pair of creatures; for half of the items this form of question too |

No shortcut answers: the choices are of one type and differ, each position is right equally often, the world's decks
make each value true and runner-up equally often, and the runner-up is always on offer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from testbed.models.pebble import words
from testbed.models.pebble.corpus import MAX_RIVALS, deal_values, fact_sentence, game_opening, struggle_text
from testbed.models.pebble.world import Game, World

KINDS = ("continuation", "facts", "purpose", "yes_no", "pronoun")
NUM_YES_NO_ITEMS = 400
NUM_PRONOUN_ITEMS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A context and choices that continue it; `gold` is the right one's position."""

    kind: str
    context: str
    choices: tuple[str, ...]
    gold: int
    p_runner_up: float


def build_items(world: World, per_kind: int | None = None) -> tuple[Item, ...]:
    """All held-out items in the order of `KINDS`, or the first `per_kind` of each kind (they are shuffled)."""
    items: list[Item] = []
    for kind, build in _BUILDERS.items():
        rng = random.Random(f"{world.seed}/items/{kind}")
        drafts = list(build(world, rng))
        rng.shuffle(drafts)
        items += _place_gold(drafts, rng)[:per_kind]
    return tuple(items)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """An item whose right choice still comes first."""

    kind: str
    context: str
    choices: tuple[str, ...]
    p_runner_up: float = 0.0


def _place_gold(drafts: list[_Draft], rng: random.Random) -> list[Item]:
    """Shuffle each item's choices so that every position holds the right one equally often."""
    items = []
    for index, draft in enumerate(drafts):
        gold = index % len(draft.choices)
        others = list(draft.choices[1:])
        rng.shuffle(others)
        choices = (*others[:gold], draft.choices[0], *others[gold:])
        items.append(
            Item(kind=draft.kind, context=draft.context, choices=choices, gold=gold, p_runner_up=draft.p_runner_up)
        )
    rng.shuffle(items)
    return items


def _continuations(world: World, rng: random.Random) -> Iterator[_Draft]:
    """The next step of a game, against the step after it and two steps of other games from the same places."""
    for game in world.games:
        for person in game.held_people:
            at = rng.randrange(1, len(game.steps) - 1)
            told = ", then".join(f" {step}" for step in game.steps[:at])
            others: list[Game] = rng.sample([other for other in world.games if other is not game], 2)
            rivals = (game.steps[at + 1], others[0].steps[at], others[1].steps[at + 1])
            yield _Draft(
                kind="continuation",
                context=f"{game_opening(person, game.name)}{told}, then",
                choices=tuple(f" {step}" for step in (game.steps[at], *rivals)),
                p_runner_up=game.p_skip,
            )


def _facts(world: World, rng: random.Random) -> Iterator[_Draft]:
    """Every fact once, in one of the wordings that the corpus never uses for it."""
    for fact in world.facts.values():
        wording = rng.choice(fact.held_wordings)
        sentence = fact_sentence(fact.creature, fact.attribute, wording, fact.value)
        rivals = [v for v in words.VALUES[fact.attribute] if v not in (fact.value, fact.runner_up)]
        choices = (fact.value, fact.runner_up, *rng.sample(rivals, 2))
        yield _Draft(
            kind="facts",
            context=sentence.removesuffix(f" {fact.value}"),
            choices=tuple(f" {value}" for value in choices),
            p_runner_up=fact.p_runner_up,
        )


def _purposes(world: World, rng: random.Random) -> Iterator[_Draft]:
    """Every goal in each wording that the corpus never uses for it: its kit or the runner-up, another goal's kit."""
    del rng
    for purpose in world.purposes:
        for wording in purpose.held_wordings:
            sentence = words.PURPOSE_WORDINGS[wording].format(g=purpose.goal, k=purpose.kit)
            yield _Draft(
                kind="purpose",
                context=sentence.removesuffix(f" {purpose.kit}"),
                choices=(f" {purpose.kit}", f" {purpose.runner_up}"),
                p_runner_up=purpose.p_runner_up,
            )


def _yes_no(world: World, rng: random.Random) -> Iterator[_Draft]:
    """Is this value this person's? Both occur in the passage, whether they belong together or not."""
    held = sorted(world.held_owners)
    for index in range(NUM_YES_NO_ITEMS):
        relation, person, value = rng.choice(held)
        truth = index % 2 == 0
        people, values = _deal_around(world, (relation, person, value), truth, rng)
        statement, yes_no, _, _ = words.RELATIONS[relation]
        passage = " ".join(statement.format(p=p, v=v) for p, v in zip(people, values, strict=True))
        yield _Draft(
            kind="yes_no",
            context=f"{passage} {yes_no.format(p=person, v=value)}",
            choices=(" Yes", " No") if truth else (" No", " Yes"),
        )


def _deal_around(
    world: World, owner: tuple[str, str, str], truth: bool, rng: random.Random
) -> tuple[list[str], list[str]]:
    """A passage that holds the owner's person and value, together if `truth`, in random places."""
    relation, person, value = owner
    while True:
        people, values = deal_values(world, relation, rng.randrange(2, MAX_RIVALS + 1), rng)
        if person in people or value in values:
            continue
        place = rng.randrange(len(people))
        people[place] = person
        holder = place if truth else rng.choice([i for i in range(len(people)) if i != place])
        values[holder] = value
        return people, values


def _pronouns(world: World, rng: random.Random) -> Iterator[_Draft]:
    """Two creatures that never met in the corpus; every other item also asks in a form that its verb never had."""
    pairs, forms = sorted(world.held_pairs), sorted(world.held_struggles)
    for index in range(NUM_PRONOUN_ITEMS):
        subject, thing = rng.sample(rng.choice(pairs), 2)
        form = forms[index // 2 % len(forms)] if index % 2 else _shown_form(world, rng)
        asks_subject = index // 2 // len(forms) % 2 == 0
        right, wrong = (subject, thing) if asks_subject else (thing, subject)
        context = struggle_text(form, subject, thing, asks_subject)
        yield _Draft(kind="pronoun", context=context, choices=(f" {right}", f" {wrong}"))


def _shown_form(world: World, rng: random.Random) -> tuple[int, int, int]:
    while True:
        form = tuple(
            rng.randrange(size)
            for size in (len(words.STRUGGLES), len(words.STRUGGLE_WORDINGS), len(words.STRUGGLE_QUESTIONS))
        )
        if form not in world.held_struggles:
            return form[0], form[1], form[2]


_BUILDERS = {
    "continuation": _continuations,
    "facts": _facts,
    "purpose": _purposes,
    "yes_no": _yes_no,
    "pronoun": _pronouns,
}
