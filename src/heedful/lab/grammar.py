"""A small grammar whose sentences have one tree each: what a model learns to parse where there is no treebank.

Every sentence can be read in one way only. A noun has one thing after it at most (`of` or a relative clause), so that
what follows belongs to the last noun; `both` opens a coordination of noun phrases; verbs take an object or do not;
`during` belongs to the verb, and neither it nor `and` stands in a relative clause.
"""

import random

from heedful.evaluation.brackets import parse

NOUNS = ("cat", "dog", "man", "woman", "child", "king", "baker", "bird", "horse", "neighbour")
ADJECTIVES = ("old", "small", "quiet", "red", "clever", "tired")
TRANSITIVE = ("saw", "chased", "liked", "painted", "heard", "followed")
INTRANSITIVE = ("slept", "ran", "sang", "smiled", "left")
SAYING = ("said", "thought", "knew")
TIMES = ("night", "winter", "storm", "feast")
DEEPEST = 7  # how often a phrase may stand within another


def trees(count: int, shortest: int, longest: int, seed: int) -> list[str]:
    """Return so many different trees of sentences of these lengths, in words."""
    generator = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        tree = _sentence(generator, 0)
        if shortest <= len(parse(tree).words) <= longest:
            found[tree] = None
    return list(found)


def _sentence(generator: random.Random, depth: int) -> str:
    return f"(S {_noun_phrase(generator, depth + 1)} {_verb_phrase(generator, depth + 1)})"


def _noun_phrase(generator: random.Random, depth: int) -> str:
    kind = generator.random() if depth < DEEPEST else 1.0
    if kind < 0.12:
        first, second = _noun_phrase(generator, depth + 1), _noun_phrase(generator, depth + 1)
        return f"(NP (CC both) {first} (CC and) {second})"
    adjective = f"(JJ {generator.choice(ADJECTIVES)}) " if generator.random() < 0.3 else ""
    noun = f"(NP (DT {generator.choice(('the', 'a'))}) {adjective}(NN {generator.choice(NOUNS)}))"
    if kind < 0.28:
        return f"(NP {noun} (PP (IN of) {_noun_phrase(generator, depth + 1)}))"
    if kind < 0.45:
        return f"(NP {noun} {_relative_clause(generator, depth + 1)})"
    return noun


def _relative_clause(generator: random.Random, depth: int) -> str:
    if generator.random() < 0.5:
        clause = f"(S {_verb(generator, depth + 1)})"
    else:
        clause = f"(S {_noun_phrase(generator, depth + 1)} (VP (VBD {generator.choice(TRANSITIVE)})))"
    return f"(SBAR (WHNP (WDT that)) {clause})"


def _verb_phrase(generator: random.Random, depth: int) -> str:
    kind = generator.random() if depth < DEEPEST else 1.0
    if kind < 0.2:
        said = generator.choice(SAYING)
        return f"(VP (VBD {said}) (SBAR (IN that) {_sentence(generator, depth + 1)}))"
    if kind < 0.4:
        first, second = (_verb(generator, depth + 1, timed=True) for _ in range(2))
        return f"(VP {first} (CC and) {second})"
    return _verb(generator, depth, timed=True)


def _verb(generator: random.Random, depth: int, *, timed: bool = False) -> str:
    """Return a verb, its object if it takes one, and, where `timed`, sometimes when."""
    if generator.random() < 0.6:
        parts = f"(VBD {generator.choice(TRANSITIVE)}) {_noun_phrase(generator, depth + 1)}"
    else:
        parts = f"(VBD {generator.choice(INTRANSITIVE)})"
    if timed and generator.random() < 0.25:
        parts += f" (PP (IN during) (NP (DT the) (NN {generator.choice(TIMES)})))"
    return f"(VP {parts})"
