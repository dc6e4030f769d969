import random

import pytest
import torch

from heedful.data.batches import batch_of
from heedful.decoding import lexicon
from heedful.decoding.forced import agreements
from heedful.model.family import build_model
from heedful.model.recorder import recording
from heedful.model.settings import ModelConfig
from heedful.text.vocabulary import END

WORDS = range(4, 17)


def pairs(count, seed=1):
    """Sentences whose target says the same in another order: token n becomes n + 20."""
    chance = random.Random(seed)
    made = []
    for _ in range(count):
        source = chance.sample(WORDS, chance.randint(2, 7))
        target = [token + 20 for token in chance.sample(source, len(source))]
        made.append(([*source, END], [*target, END]))
    return made


def test_what_stands_together_is_linked_whatever_the_order():
    learned = lexicon.learn(pairs(211))
    for source, target in pairs(50, seed=2):
        expected = [(source.index(token - 20), t) for t, token in enumerate(target[:-1])]
        assert learned.links(source, target) == expected


def test_what_was_never_seen_is_not_linked_and_the_end_never():
    learned = lexicon.learn(pairs(97))
    assert learned.links([4, 5, END], [99, END]) == []
    assert learned.links([END], [24, END]) == []


def test_of_long_texts_only_so_many_links_are_looked_at(monkeypatch):
    monkeypatch.setattr(lexicon, "MOST_LINKS", 3)
    learned = lexicon.learn([([5, 6, END], [25, 26, END]), ([7, END], [27, END])])
    assert learned.links([5, 7], [27]) == []  # the second pair comes after four links
    assert {source for source, _ in learned.probabilities} == {5, 6}


def test_probabilities_of_a_source_symbol_add_up_to_one():
    learned = lexicon.learn(pairs(53))
    for word in WORDS:
        total = sum(p for (source, _), p in learned.probabilities.items() if source == word)
        assert total == pytest.approx(1.0)


def test_agreement_is_the_share_of_links_that_a_head_looks_at(tiny_model, toy_vocabulary):
    model = tiny_model(source_size=53, target_size=53)
    learned, tested = lexicon.learn(pairs(97)), pairs(11, seed=3)
    found = agreements(model, *map(list, zip(*tested, strict=True)), learned, batch=4)
    assert {name for name, _ in found} == {f"cross.{i}{h}" for i in range(3) for h in ("", ".0", ".1")}
    assert [share for _, share in found] == sorted((share for _, share in found), reverse=True)
    right = links = 0
    for source, target in tested:
        batch = batch_of([source], [target])
        with torch.inference_mode(), recording(model) as maps:
            model.decode(batch.target_in_BT, model.encode(batch.source_BS, batch.source_lengths_B))
        looks = maps["cross.1"][0][0, 1, :, :-1].argmax(-1).tolist()
        right += sum(looks[t] == s for s, t in learned.links(source, target))
        links += len(learned.links(source, target))
    assert dict(found)["cross.1.1"] == pytest.approx(right / links)


def test_without_a_link_or_an_attention_there_is_nothing_to_choose(tiny_model, toy_vocabulary):
    model, tested = tiny_model(source_size=53, target_size=53), pairs(5, seed=3)
    sides = list(map(list, zip(*tested, strict=True)))
    assert agreements(model, *sides, lexicon.learn([([5, END], [9, END])])) == []
    lstm = build_model(ModelConfig(family="lstm", d_model=12, encoder_layers=1, decoder_layers=1), 53, 53).eval()
    assert agreements(lstm, *sides, lexicon.learn(tested)) == []
