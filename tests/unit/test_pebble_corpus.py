"""pebble's world and corpus: reproducible, balanced, and silent about everything that the items ask."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import islice
from math import sqrt

import pytest

from testbed.models.pebble import words
from testbed.models.pebble.corpus import KIND_SHARES, Lesson, document, documents, fact_sentence
from testbed.models.pebble.prompts import prompts
from testbed.models.pebble.tasks import build_items
from testbed.models.pebble.world import build_world, ordered_pair

NUM_DOCUMENTS = 20_000
WORLD = build_world()


@pytest.fixture(scope="module")
def sampled():
    return list(islice(documents(WORLD), NUM_DOCUMENTS))


HASH_PROGRAM = """
import hashlib
from itertools import islice
from testbed.models.pebble.corpus import documents
from testbed.models.pebble.prompts import prompts
from testbed.models.pebble.tasks import build_items
from testbed.models.pebble.world import build_world
world = build_world()
told = [(one.stem, one.answer) for one in islice(documents(world), 300)]
items = [(one.context, one.choices, one.gold) for one in build_items(world)]
print(hashlib.sha256(repr((told, items, prompts(3, 20))).encode()).hexdigest())
"""


def test_the_corpus_and_the_items_do_not_depend_on_the_hash_seed():
    digests = [
        subprocess.run(
            [sys.executable, "-c", HASH_PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert digests[0] == digests[1]


def test_the_corpus_is_the_one_the_shipped_weights_were_trained_on():
    text = "\n".join(f"{one.stem}|{one.answer}" for one in islice(documents(WORLD), 2000))
    assert hashlib.sha256(text.encode()).hexdigest() == CORPUS_DIGEST


CORPUS_DIGEST = "2fca560478c4bc4f978a7b8151d093deb06d4ba24659c43b0da533dbbb278c53"


def test_a_document_depends_on_its_number_alone():
    straight = list(islice(documents(WORLD), 50))
    assert [document(WORLD, index) for index in reversed(range(50))] == straight[::-1]
    assert build_world(2) != WORLD


def test_every_value_is_true_and_runner_up_equally_often():
    for attribute, values in words.VALUES.items():
        facts = [fact for (_, name), fact in WORLD.facts.items() if name == attribute]
        each = words.NUM_CREATURES / len(values)
        assert Counter(fact.value for fact in facts) == Counter(dict.fromkeys(values, each))
        assert Counter(fact.runner_up for fact in facts) == Counter(dict.fromkeys(values, each))
        assert all(fact.value != fact.runner_up for fact in facts)
        levels = Counter(fact.p_runner_up for fact in facts)
        assert levels == {0.0: 32, 0.1: 16, 0.2: 16, 0.3: 16, 0.4: 16}


def test_every_kit_serves_one_goal_and_is_the_runner_up_of_one_other():
    kits = [purpose.kit for purpose in WORLD.purposes]
    assert len(set(kits)) == len(kits)
    assert sorted(purpose.runner_up for purpose in WORLD.purposes) == sorted(kits)
    for purpose in WORLD.purposes:
        tool, stuff = purpose.kit.split(" and some ")
        other_tool, other_stuff = purpose.runner_up.split(" and some ")
        assert (tool == other_tool) + (stuff == other_stuff) == 1


def test_lessons_change_what_is_told_and_never_what_is_held_out():
    narrow = [document(WORLD, index, Lesson(breadth=0.25)) for index in range(500)]
    late = [document(WORLD, index, Lesson(shares={"pronoun": 1.0}, p_turned_active=1.0)) for index in range(500)]
    assert not any(name in one.text for one in narrow for name in WORLD.creatures[24:] if one.kind == "facts")
    assert all(one.kind == "pronoun" and " by the " not in one.stem for one in late)
    for one in late:
        first, second = sorted({word for word in re.findall(r"\w+", one.stem) if word in WORLD.creatures})
        assert ordered_pair(WORLD, first, second) not in WORLD.held_pairs


def test_kinds_of_documents_come_in_their_shares(sampled):
    counts = Counter(one.kind for one in sampled)
    for kind, share in KIND_SHARES.items():
        assert abs(counts[kind] / NUM_DOCUMENTS - share) < 4 * sqrt(share * (1 - share) / NUM_DOCUMENTS)


def test_the_runner_up_is_stated_with_its_probability(sampled):
    meaning = {
        fact_sentence(fact.creature, fact.attribute, wording, value): (fact.p_runner_up, value == fact.runner_up)
        for fact in WORLD.facts.values()
        for wording in range(len(words.FACT_WORDINGS[fact.attribute]))
        for value in (fact.value, fact.runner_up)
    }
    stated: dict[float, list[bool]] = {}
    for one in sampled:
        for sentence in one.text.rstrip(".").split(". ") if one.kind == "facts" else ():
            if sentence in meaning:
                level, is_runner_up = meaning[sentence]
                stated.setdefault(level, []).append(is_runner_up)
    assert not any(stated[0.0])
    for level in (0.1, 0.2, 0.3, 0.4):
        total = len(stated[level])
        assert total > 1000
        assert abs(sum(stated[level]) / total - level) < 4 * sqrt(level * (1 - level) / total)


def test_the_corpus_never_shows_what_an_item_asks(sampled):
    text = "\n".join(one.text for one in sampled)
    for item in build_items(WORLD):
        if item.kind in ("facts", "purpose"):
            assert item.context + " " not in text
        if item.kind == "continuation":
            assert item.context.split(".")[0] not in text
    for relation, person, value in WORLD.held_owners:
        statement, yes_no, _, _ = words.RELATIONS[relation]
        assert statement.format(p=person, v=value) not in text
        assert yes_no.format(p=person, v=value) not in text


def test_the_corpus_never_shows_a_held_pair_or_form_of_a_struggle(sampled):
    creatures = set(WORLD.creatures)
    held_patterns = [
        re.compile(
            re.escape(
                words.STRUGGLE_WORDINGS[wording].format(
                    x="\0",
                    y="\0",
                    verb=words.STRUGGLES[struggle][0],
                    participle=words.STRUGGLES[struggle][1],
                    adjective="\0",
                )
                + " "
                + words.STRUGGLE_QUESTIONS[question].format(adjective="\0", z="\0")
            ).replace("\0", r"\w+")
        )
        for struggle, wording, question in WORLD.held_struggles
    ]
    told = [one for one in sampled if one.kind == "pronoun"]
    assert len(told) > 1000
    for one in told:
        first, second = sorted({word for word in re.findall(r"\w+", one.stem) if word in creatures})
        assert ordered_pair(WORLD, first, second) not in WORLD.held_pairs
        assert not any(pattern.match(one.text) for pattern in held_patterns)
    asked = [item for item in build_items(WORLD) if item.kind == "pronoun"]
    assert sum(any(p.match(i.context + i.choices[0]) for p in held_patterns) for i in asked) == len(asked) // 2


def test_an_answer_in_a_passage_follows_from_the_passage(sampled):
    owner = {
        "colour": re.compile(r"(\w+) wears (\w+)\."),
        "food": re.compile(r"(\w+) likes (\w+)\."),
    }
    verdicts = Counter()
    for one in sampled:
        asked = re.search(r"Does (\w+) (wear|like) (\w+)\?$", one.stem) if one.kind == "passage" else None
        if asked:
            facts = dict(owner["colour" if asked[2] == "wear" else "food"].findall(one.stem))
            assert one.answer == (" Yes." if facts[asked[1]] == asked[3] else " No.")
            verdicts[one.answer] += 1
    total = verdicts.total()
    assert total > 1000
    assert abs(verdicts[" Yes."] / total - 0.5) < 4 * sqrt(0.25 / total)


def test_prompts_are_reproducible_and_held_out(sampled):
    found = prompts(7, 40)
    assert found == prompts(7, 60)[:40]
    assert len(set(found)) > 30
    assert prompts(8, 40) != found
    text = "\n".join(one.text for one in sampled)
    contexts = [item.context for item in build_items(WORLD)]
    for prompt in found:
        assert prompt not in text
        assert any(prompt.endswith(context) for context in contexts)
