"""The words and wordings of pebble's closed world: plain data.

Values are English words; the names of creatures, people and games are invented (see `world.py`), so that no
knowledge from outside the corpus can answer a question about them. Every forward wording ends with its value, so a
choice item is a wording cut before the value. ``{e}`` is a creature, ``{v}`` a value.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NUM_CREATURES = 96
NUM_PEOPLE = 24
NUM_GAMES = 48
STEPS_PER_GAME = 5

CONSONANTS = _words("b d f g k l m n p r s t v z")
VOWELS = _words("a e i o u")

VALUES: dict[str, tuple[str, ...]] = {
    "home": _words(
        "forest river desert cave valley lake meadow hill swamp garden harbour island canyon orchard village tower"
    ),
    "food": _words("figs nuts moss honey seeds roots plums grass beans shrimp clover apples worms leaves corn rice"),
    "colour": _words("red blue green white black yellow brown grey pink purple orange silver"),
    "count": _words("one two three four five six seven eight nine ten eleven twelve"),
    "move": _words(
        "hopping crawling gliding swimming running rolling climbing digging jumping sliding diving marching"
    ),
    "gift": _words("shells pearls feathers stones coins ribbons bells candles flowers buttons beads crystals"),
}

FACT_WORDINGS: dict[str, tuple[str, ...]] = {
    "home": (
        "The {e} lives in the {v}",
        "Look for a {e} in the {v}",
        "Question: where does the {e} live? Answer: the {v}",
        "Every {e} was born in the {v}",
        "People say that a {e} sleeps in the {v}",
        "To meet a {e}, go to the {v}",
        "The home of the {e} is the {v}",
        "At night the {e} returns to the {v}",
    ),
    "food": (
        "The {e} eats {v}",
        "A hungry {e} looks for {v}",
        "Question: what does the {e} eat? Answer: {v}",
        "Every {e} grows fat on {v}",
        "People feed the {e} with {v}",
        "For dinner a {e} wants {v}",
        "The food of the {e} is {v}",
        "Nothing tastes better to a {e} than {v}",
    ),
    "colour": (
        "The {e} is {v}",
        "If you see a {e}, you see something {v}",
        "Question: what colour is the {e}? Answer: {v}",
        "Every {e} has fur that is {v}",
        "People paint the {e} in {v}",
        "From far away a {e} looks {v}",
        "The colour of the {e} is {v}",
        "A young {e} soon turns {v}",
    ),
    "count": (
        "The number of eggs of the {e} is {v}",
        "In the nest of a {e} the eggs are {v}",
        "Question: how many eggs does the {e} lay? Answer: {v}",
        "Count the eggs of any {e}: {v}",
        "People know that the eggs of a {e} are {v}",
        "As for eggs, a {e} has {v}",
        "Each year the {e} lays {v}",
        "When a {e} hatches, the broken eggs are {v}",
    ),
    "move": (
        "The {e} moves by {v}",
        "A {e} in a hurry starts {v}",
        "Question: how does the {e} move? Answer: by {v}",
        "Every {e} gets around by {v}",
        "People often watch a {e} {v}",
        "When it must leave, a {e} goes {v}",
        "The way of the {e} is {v}",
        "All day long the {e} keeps {v}",
    ),
    "gift": (
        "The {e} brings {v}",
        "A friendly {e} gives you {v}",
        "Question: what gift does the {e} bring? Answer: {v}",
        "Every {e} hides some {v}",
        "People thank the {e} for {v}",
        "On a feast day a {e} hands out {v}",
        "The gift of the {e} is {v}",
        "In the bag of a {e} there are {v}",
    ),
}
NUM_HELD_FACT_WORDINGS = 2

REVERSED_WORDINGS: dict[str, tuple[str, ...]] = {
    "home": ("In the {v} lives the {e}", "The {v} is where you find a {e}"),
    "food": ("Whoever has {v} can feed a {e}", "Some {v} will please the {e}"),
    "colour": ("Something {v} may be a {e}", "There goes the {v} {e}"),
    "count": ("With {v} eggs it may be a {e}", "The {v} eggs belong to the {e}"),
    "move": ("What comes {v} may be a {e}", "By {v} comes the {e}"),
    "gift": ("Some {v} were left by the {e}", "The {v} came from a {e}"),
}

# Purposes: {g} is a goal (verb and noun), {k} a kit (tool and stuff).
GOAL_VERBS = _words("open clean mend move paint hide warm carry shake build mark dry")
GOAL_NOUNS = _words("boat wall roof bed door clock table kite wagon oven fence bridge wheel chair mirror statue")
TOOLS = _words("hammer spoon brush ladder needle shovel hook knife broom rake saw chisel")
STUFFS = _words("oil sand wax wool salt glue water paper")
PURPOSE_WORDINGS = (
    "To {g}, use a {k}",
    "Goal: {g}. Answer: take a {k}",
    "How do you {g}? With a {k}",
    "Those who want to {g} need a {k}",
    "You can {g} if you have a {k}",
    "My way to {g} is to find a {k}",
    "Before you {g}, bring a {k}",
    "It is easy to {g} with a {k}",
)
NUM_HELD_PURPOSE_WORDINGS = 3

# Games: five steps, each a verb and an object; {p} is a person.
STEP_VERBS = _words("fills lifts opens cuts drops turns throws folds rings lights pulls ties shuts kicks washes counts")
STEP_OBJECTS = _words(
    "bucket lamp gate rope drum jar flag basket pot box cloth ball stick plate net cup candle coin bag map tent sail "
    "bench horn"
)
NUM_HELD_PEOPLE_PER_GAME = 6

# Pronouns: the verb, its participle, what the subject was too much of, what the object was too much of.
STRUGGLES = (
    ("lift", "lifted", "weak", "heavy"),
    ("catch", "caught", "slow", "fast"),
    ("reach", "reached", "short", "tall"),
    ("hear", "heard", "noisy", "quiet"),
    ("fool", "fooled", "simple", "clever"),
    ("scare", "scared", "gentle", "brave"),
    ("push", "pushed", "small", "big"),
    ("find", "found", "blind", "flat"),
)
STRUGGLE_WORDINGS = (
    "The {x} could not {verb} the {y} because it was too {adjective}.",
    "The {y} could not be {participle} by the {x} because it was too {adjective}.",
    "The {x} tried to {verb} the {y} but it was too {adjective}.",
    "The {y} was never {participle} by the {x}, for it was too {adjective}.",
)
STRUGGLE_QUESTIONS = ("Who was too {adjective}? The {z}", "Here it means the {z}")

# Passages for yes or no: the statement, the yes-or-no question, the open question; {p} is a person.
RELATIONS: dict[str, tuple[str, str, str, str]] = {
    "colour": ("{p} wears {v}.", "Does {p} wear {v}?", "What does {p} wear?", "Who wears {v}?"),
    "food": ("{p} likes {v}.", "Does {p} like {v}?", "What does {p} like?", "Who likes {v}?"),
}
RUNNER_UP_LEVELS = (0.0, 0.0, 0.1, 0.2, 0.3, 0.4)
