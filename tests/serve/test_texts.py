"""Ten thousand texts that nobody would write, over HTTP: an answer to each, lines and placeholders kept."""

import re

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heedful.decoding.settings import SearchConfig
from heedful.serve.app import make_app
from heedful.text.document import LINE_ENDS, PLACEHOLDER, clean, split
from heedful.translator import Translator

MANY = 20  # texts in a request
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.text(alphabet="abcdefghij ,.!?-", max_size=30),
        st.sampled_from(
            [
                "{name}",
                "%s",
                "%(count)d",
                "https://a.org/x?y=1",
                "me@a.org",
                "`x = 1`",
                "\n\n",
                "\r\n",
                "- ",
                "Where is it? ",
            ]
        ),
    ),
    max_size=8,
).map("".join)


@pytest.fixture(scope="module")
def client(served):
    boxed = Translator.load("en-de")
    boxed.search = SearchConfig(beam=1, max_extra=8)
    with served(make_app([boxed])) as address, httpx.Client(base_url=address, timeout=60) as opened:
        yield opened


@pytest.mark.slow
@settings(max_examples=10_000 // MANY, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(TEXTS, min_size=MANY, max_size=MANY))
def test_ten_thousand_texts_keep_their_lines_and_placeholders(client, texts):
    answer = client.post("/translate", json={"q": texts, "source": "en", "target": "de"})
    assert answer.status_code == 200, answer.text
    found = answer.json()["translatedText"]
    assert len(found) == MANY
    for text, translation in zip(texts, found, strict=True):
        assert LINE_ENDS.findall(translation) == LINE_ENDS.findall(clean(text))
        wanted = [held for part in split(text, "en") if part.translate for held in PLACEHOLDER.findall(part.text)]
        assert all(translation.count(held) >= wanted.count(held) for held in wanted)
        assert bool(re.search(r"\S", translation)) or not re.search(r"\w", text)
