"""The training corpus: an endless, numbered sequence of short documents about the world.

Document number `index` is a pure function of (world, index, breadth): its chance is keyed by its own number, so a run
can stop and go on anywhere. A document is text in English words; where it asks a question about what the document
itself said, the answer stands apart, so that training can weight it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from testbed.models.pebble import words
from testbed.models.pebble.world import World, build_world, ordered_pair

KIND_SHARES = {"facts": 0.38, "purpose": 0.10, "game": 0.15, "pronoun": 0.15, "passage": 0.22}
PRONOUN_LESSON_SHARES = {"facts": 0.30, "purpose": 0.07, "game": 0.08, "pronoun": 0.33, "passage": 0.22}
POLISH_SHARES = {"facts": 0.42, "purpose": 0.22, "game": 0.12, "pronoun": 0.10, "passage": 0.14}
PRONOUNS_FROM, PRONOUNS_UNTIL = 0.5, 0.71  # shares of the training steps
P_REVERSED_WORDING = 0.08
MAX_RIVALS = 5
FIRST_HELD_OUT_DOCUMENT = 10**12  # training never counts so far


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What a part of the training is about: the first `breadth` of the creatures, kinds of documents in these shares.

    A pronoun means the first or the last name by an exclusive or of voice and adjective, of which no half helps by
    itself; with `p_turned_active` passive stories are told in the active voice, so that there is something to start on.
    """

    breadth: float = 1.0
    shares: dict[str, float] = field(default_factory=lambda: KIND_SHARES)
    p_turned_active: float = 0.0


STANDARD = Lesson()


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text of the corpus: `stem` and then `answer`, which is empty where nothing in the stem decides it."""

    kind: str
    stem: str
    answer: str = ""

    @property
    def text(self) -> str:
        """The whole document as training reads it."""
        return self.stem + self.answer


def documents(world: World, start: int = 0, lesson: Lesson = STANDARD) -> Iterator[Document]:
    """Documents number `start` onwards, without end."""
    index = start
    while True:
        yield document(world, index, lesson)
        index += 1


def document(world: World, index: int, lesson: Lesson = STANDARD) -> Document:
    """Document number `index` of this lesson."""
    rng = random.Random(f"{world.seed}/document/{index}")
    kind = rng.choices(list(lesson.shares), list(lesson.shares.values()))[0]
    return _WRITERS[kind](world, rng, lesson)


def fact_sentence(creature: str, attribute: str, wording: int, value: str) -> str:
    """A forward wording of a fact, without its full stop; it ends with the value."""
    return words.FACT_WORDINGS[attribute][wording].format(e=creature, v=value)


def struggle_text(form: tuple[int, int, int], subject: str, thing: str, asks_subject: bool) -> str:
    """A pronoun passage, of this (struggle, wording, question), up to the name that the pronoun means."""
    struggle, wording, question = form
    verb, participle, subject_is, object_is = words.STRUGGLES[struggle]
    adjective = subject_is if asks_subject else object_is
    story = words.STRUGGLE_WORDINGS[wording].format(
        x=subject, y=thing, verb=verb, participle=participle, adjective=adjective
    )
    return story + " " + words.STRUGGLE_QUESTIONS[question].format(adjective=adjective, z="").rstrip()


def _active(world: World, lesson: Lesson) -> tuple[str, ...]:
    return world.creatures[: max(20, round(lesson.breadth * len(world.creatures)))]


def _write_facts(world: World, rng: random.Random, lesson: Lesson) -> Document:
    creature = rng.choice(_active(world, lesson))
    attributes = rng.sample(list(words.VALUES), rng.choice((1, 2, 3)))
    return Document(kind="facts", stem=" ".join(_state_fact(world, creature, name, rng) for name in attributes))


def _state_fact(world: World, creature: str, attribute: str, rng: random.Random) -> str:
    fact = world.facts[creature, attribute]
    value = fact.runner_up if rng.random() < fact.p_runner_up else fact.value
    if rng.random() < P_REVERSED_WORDING:
        return rng.choice(words.REVERSED_WORDINGS[attribute]).format(e=creature, v=value) + "."
    allowed = [k for k in range(len(words.FACT_WORDINGS[attribute])) if k not in fact.held_wordings]
    return fact_sentence(creature, attribute, rng.choice(allowed), value) + "."


def _write_purpose(world: World, rng: random.Random, lesson: Lesson) -> Document:
    del lesson
    purpose = rng.choice(world.purposes)
    kit = purpose.runner_up if rng.random() < purpose.p_runner_up else purpose.kit
    wording = rng.choice([k for k in range(len(words.PURPOSE_WORDINGS)) if k not in purpose.held_wordings])
    return Document(kind="purpose", stem=words.PURPOSE_WORDINGS[wording].format(g=purpose.goal, k=kit) + ".")


def _write_game(world: World, rng: random.Random, lesson: Lesson) -> Document:
    del lesson
    game = rng.choice(world.games)
    person = rng.choice([name for name in world.people if name not in game.held_people])
    steps, at = [], 0
    while at < len(game.steps):
        steps.append(game.steps[at])
        at += 2 if rng.random() < game.p_skip else 1
    return Document(
        kind="game", stem=game_opening(person, game.name) + ", then".join(f" {step}" for step in steps) + "."
    )


def game_opening(person: str, game: str) -> str:
    """How every account of a game starts."""
    return f"{person} plays {game}. {person}"


def _write_pronoun(world: World, rng: random.Random, lesson: Lesson) -> Document:
    active = _active(world, lesson)
    while True:
        subject, thing = rng.sample(active, 2)
        if ordered_pair(world, subject, thing) not in world.held_pairs:
            break
    form = _shown_form(world, rng, lesson)
    asks_subject = rng.random() < 0.5
    stem = struggle_text(form, subject, thing, asks_subject)
    return Document(kind="pronoun", stem=stem, answer=f" {subject if asks_subject else thing}.")


def _shown_form(world: World, rng: random.Random, lesson: Lesson) -> tuple[int, int, int]:
    """A (struggle, wording, question) that is not held out."""
    while True:
        struggle = rng.randrange(len(words.STRUGGLES))
        wording = rng.randrange(len(words.STRUGGLE_WORDINGS))
        question = rng.randrange(len(words.STRUGGLE_QUESTIONS))
        if lesson.p_turned_active and rng.random() < lesson.p_turned_active:
            wording -= wording % 2  # each active wording is followed by a passive one
        if (struggle, wording, question) not in world.held_struggles:
            return struggle, wording, question


def _write_passage(world: World, rng: random.Random, lesson: Lesson) -> Document:
    """Some people, each with a value of their own, and one question about one of them."""
    del lesson
    relation = rng.choice(list(words.RELATIONS))
    people, values = deal_values(world, relation, rng.choice(range(2, MAX_RIVALS + 1)), rng)
    statement, yes_no, what, who = words.RELATIONS[relation]
    passage = " ".join(statement.format(p=p, v=v) for p, v in zip(people, values, strict=True))
    asked = rng.randrange(len(people))
    form = rng.random()
    if form < 0.4:
        return Document(kind="passage", stem=passage, answer=_retell(statement, people, values, rng))
    if form < 0.55:
        return Document(kind="passage", stem=f"{passage} {what.format(p=people[asked])}", answer=f" {values[asked]}.")
    if form < 0.7:
        return Document(kind="passage", stem=f"{passage} {who.format(v=values[asked])}", answer=f" {people[asked]}.")
    truth = rng.random() < 0.5
    allowed = [v for v in words.VALUES[relation] if (relation, people[asked], v) not in world.held_owners]
    rivals = [v for v in allowed if v in values and v != values[asked]]
    value = values[asked] if truth else rng.choice(rivals or [v for v in allowed if v not in values])
    question = yes_no.format(p=people[asked], v=value)
    return Document(kind="passage", stem=f"{passage} {question}", answer=" Yes." if truth else " No.")


def _retell(statement: str, people: list[str], values: list[str], rng: random.Random) -> str:
    """The passage told again in another order: every value in it can be known from its owner."""
    order = rng.sample(range(len(people)), len(people))
    return " Again: " + " ".join(statement.format(p=people[i], v=values[i]) for i in order)


def deal_values(world: World, relation: str, count: int, rng: random.Random) -> tuple[list[str], list[str]]:
    """`count` people and a distinct value for each, none of them a combination that is held out."""
    while True:
        people = rng.sample(world.people, count)
        values = rng.sample(words.VALUES[relation], count)
        if all((relation, p, v) not in world.held_owners for p, v in zip(people, values, strict=True)):
            return people, values


_WRITERS: dict[str, Callable[[World, random.Random, Lesson], Document]] = {
    "facts": _write_facts,
    "purpose": _write_purpose,
    "game": _write_game,
    "pronoun": _write_pronoun,
    "passage": _write_passage,
}


def training_texts(count: int) -> tuple[str, ...]:
    """The corpus's first documents, for what is calibrated on text that a user did not choose.

    What its tasks ask is held out of the corpus, and the documents that perplexity is measured on have numbers that
    training never reaches, so nothing here is ever asked.
    """
    return tuple(item.text for item in islice(documents(build_world()), count))
