"""How a model reads text: which tokens a line becomes, and what is done about capitals."""

from collections.abc import Sequence
from dataclasses import dataclass

from heedful.text.capitals import in_capitals, is_shouted, split_tag
from heedful.text.document import clean
from heedful.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class Reader:
    """Turns text into tokens; with `capitals`, a line in capitals is read as in lower case."""

    vocabulary: Vocabulary
    capitals: bool = False

    def encode(self, lines: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """Return the tokens that the model reads for each line, END last, and which lines are read in lower case."""
        tagged = [split_tag(line) for line in lines]
        shouted = [self.capitals and is_shouted(rest) for _, rest in tagged]
        texts = [
            clean(tag + (rest.lower() if loud else rest)) for (tag, rest), loud in zip(tagged, shouted, strict=True)
        ]
        return self.vocabulary.encode_source(texts), shouted

    def encode_pairs(
        self, sources: Sequence[str], targets: Sequence[str]
    ) -> tuple[list[list[int]], list[list[int]], list[bool]]:
        """Return the tokens of both sides, and which pairs have a source in capitals, which is read in lower case.

        So is its target if it is in capitals too: which of its letters were capital before, nobody can tell.
        """
        source_ids, shouted = self.encode(sources)
        return source_ids, self._targets(targets, shouted), shouted

    def encode_prefixes(self, prefixes: Sequence[str], shouted: Sequence[bool]) -> list[list[int]]:
        """Return the tokens that outputs must begin with; for a line in capitals as `encode_pairs` does."""
        return [ids[:-1] for ids in self._targets(prefixes, shouted)]

    def fitting(self, pairs: Sequence[tuple[str, str]], most: int) -> list[int]:
        """Return the numbers of the pairs of which neither side has more than `most` tokens, END among them."""
        if not pairs:
            return []
        sources, targets, _ = self.encode_pairs(*zip(*pairs, strict=True))
        both = zip(sources, targets, strict=True)
        return [number for number, (source, target) in enumerate(both) if max(len(source), len(target)) <= most]

    def _targets(self, targets: Sequence[str], shouted: Sequence[bool]) -> list[list[int]]:
        texts = [
            clean(text.lower() if loud and in_capitals(text) else text)
            for text, loud in zip(targets, shouted, strict=True)
        ]
        return self.vocabulary.encode_target(texts)
