"""No shortcut answers pebble's items: rules that never read what is asked stay near chance."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice, pairwise
from math import sqrt

import pytest

from testbed.models.pebble.corpus import documents
from testbed.models.pebble.tasks import KINDS, build_items
from testbed.models.pebble.world import build_world

WORLD = build_world()
ITEMS = build_items(WORLD)
Z = 3.5  # one rule in two thousand would exceed this by luck


def of_kind(kind):
    return [item for item in ITEMS if item.kind == kind]


def accuracy(items, value_of):
    """Expected accuracy of choosing the largest value, ties broken evenly."""
    total = 0.0
    for item in items:
        values = [value_of(item, choice) for choice in item.choices]
        best = [index for index, value in enumerate(values) if value == max(values)]
        total += (item.gold in best) / len(best)
    return total / len(items)


def highest_by_luck(items):
    chance = 1 / len(items[0].choices)
    return chance + Z * sqrt(chance * (1 - chance) / len(items))


@pytest.fixture(scope="module")
def frequency():
    """How often each choice occurs in a sample of the corpus."""
    text = "\n".join(one.text for one in islice(documents(WORLD), 10_000))
    choices = {choice for item in ITEMS for choice in item.choices}
    return {choice: sum(text.count(choice + after) for after in " .,?") for choice in choices}


def test_each_kind_has_enough_items_of_one_shape():
    assert tuple(dict.fromkeys(item.kind for item in ITEMS)) == KINDS
    for kind in KINDS:
        items = of_kind(kind)
        assert len(items) >= 200
        assert len({len(item.choices) for item in items}) == 1
        assert len({(item.context, item.choices) for item in items}) > 0.97 * len(items)
        assert all(len(set(item.choices)) == len(item.choices) for item in items)


def test_every_position_is_right_equally_often():
    for kind in KINDS:
        counts = Counter(item.gold for item in of_kind(kind))
        assert len(counts) == len(of_kind(kind)[0].choices)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_positions_do_not_follow_the_order_of_the_items():
    for kind in KINDS:
        golds = [item.gold for item in of_kind(kind)]
        repeated = sum(a == b for a, b in pairwise(golds)) / (len(golds) - 1)
        chance = 1 / len(of_kind(kind)[0].choices)
        assert abs(repeated - chance) < Z * sqrt(chance * (1 - chance) / len(golds))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sign", [1, -1])
def test_length_does_not_tell(kind, sign):
    items = of_kind(kind)
    assert accuracy(items, lambda item, choice: sign * len(choice)) < highest_by_luck(items)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sign", [1, -1])
def test_frequency_in_the_corpus_does_not_tell(kind, sign, frequency):
    items = of_kind(kind)
    assert accuracy(items, lambda item, choice: sign * frequency[choice]) < highest_by_luck(items)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sign", [1, -1])
def test_place_in_the_context_does_not_tell(kind, sign):
    items = of_kind(kind)
    assert accuracy(items, lambda item, choice: sign * item.context.rfind(choice)) < highest_by_luck(items)


@pytest.mark.parametrize("kind", ["continuation", "facts", "purpose"])
def test_words_shared_with_the_context_do_not_tell(kind):
    items = of_kind(kind)

    def shared(item, choice):
        return len(set(choice.split()) & set(re.findall(r"\w+", item.context)) - {"the", "some", "and"})

    assert accuracy(items, shared) < highest_by_luck(items)
    assert accuracy(items, lambda item, choice: -shared(item, choice)) < highest_by_luck(items)


@pytest.mark.parametrize("rule", ["value last", "value first", "person last", "person first", "few rivals"])
def test_places_in_the_passage_do_not_tell_yes_from_no(rule):
    items = of_kind("yes_no")

    def says_yes(item):
        facts = re.findall(r"(\w+) (?:wears|likes) (\w+)\.", item.context)
        person, value = re.search(r"Does (\w+) (?:wear|like) (\w+)\?$", item.context).groups()
        return {
            "value last": facts[-1][1] == value,
            "value first": facts[0][1] == value,
            "person last": facts[-1][0] == person,
            "person first": facts[0][0] == person,
            "few rivals": len(facts) <= 3,
        }[rule]

    def value(item, choice):
        return says_yes(item) == (choice == " Yes")

    assert accuracy(items, value) < highest_by_luck(items)
    assert accuracy(items, lambda item, choice: not value(item, choice)) < highest_by_luck(items)


def test_yes_no_items_always_have_a_rival_of_the_same_type_and_follow_from_the_passage():
    for item in of_kind("yes_no"):
        facts = dict(re.findall(r"(\w+) (?:wears|likes) (\w+)\.", item.context))
        person, value = re.search(r"Does (\w+) (?:wear|like) (\w+)\?$", item.context).groups()
        assert len(set(facts.values())) == len(facts) >= 2
        assert value in facts.values()
        assert item.choices[item.gold] == (" Yes" if facts[person] == value else " No")


def test_the_runner_up_is_always_on_offer():
    for item in of_kind("facts"):
        right = item.choices[item.gold].strip()
        assert any(
            fact.value == right and f" {fact.runner_up}" in item.choices and fact.creature in item.context
            for fact in WORLD.facts.values()
        )


def test_a_pronoun_means_subject_and_object_and_first_and_last_name_equally_often():
    items = of_kind("pronoun")
    right = [item.choices[item.gold].strip() for item in items]
    subjects = [(re.search(r"by the (\w+)", i.context) or re.match(r"The (\w+)", i.context))[1] for i in items]
    last = [max(item.choices, key=item.context.rfind).strip() for item in items]
    for guesses in (subjects, last):
        share = sum(guess == name for guess, name in zip(guesses, right, strict=True)) / len(items)
        assert abs(share - 0.5) < Z * sqrt(0.25 / len(items))
