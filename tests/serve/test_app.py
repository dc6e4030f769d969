"""The HTTP interface: LibreTranslate's answers, limits, keys; results that do not depend on who else asks."""

import asyncio
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from threading import Event
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
import httpx
import numpy as np
from libretranslatepy import LibreTranslateAPI
from starlette.requests import Request

from heedful.bundle import WEIGHTS, locate
from heedful.errors import HeedfulError
from heedful.model.ensemble import Ensemble
from heedful.model.family import build_model
from heedful.model.settings import ModelConfig
from heedful.model.weights import read_weights, write_weights
from heedful.serve.app import make_app
from heedful.serve.batching import Batcher, TooManyError
from heedful.serve.limits import Keys, ServeConfig, new_key
from heedful.serve.messages import TranslateRequest, _form
from heedful.text.document import Sentence
from heedful.translator import Translator

HEEDFUL = (sys.executable, "-m", "heedful")
TEXT = {"q": "Where is the station?", "source": "en", "target": "de"}


@pytest.fixture(scope="module")
def boxed():
    return Translator.load("en-de")


@pytest.fixture
def serving(boxed, served):
    """Return a function that serves the box's model with other settings, and gives a client of it."""
    with ExitStack() as running:

        def serve(**changes):
            address = running.enter_context(served(make_app([boxed], ServeConfig(**changes))))
            return running.enter_context(httpx.Client(base_url=address, timeout=60))

        yield serve


def test_texts_lists_forms_html_and_alternatives(serving, boxed):
    client = serving()
    expected = boxed.translate_document(TEXT["q"])
    assert client.post("/translate", json=TEXT).json() == {"translatedText": expected}
    assert client.post("/translate", data=TEXT).json() == {"translatedText": expected}
    several = client.post("/translate", json={**TEXT, "q": [TEXT["q"], "", "Hello!\n\n42"]}).json()["translatedText"]
    assert several[:2] == [expected, ""]
    assert several[2].endswith("\n\n42")
    html = client.post("/translate", json={**TEXT, "q": "<b>Good morning!</b>", "format": "html"}).json()
    assert html["translatedText"].startswith("<b>")
    found = client.post("/translate", json={**TEXT, "alternatives": 3}).json()
    assert 1 <= len(found["alternatives"]) <= 3
    fields = {name: (None, value) for name, value in TEXT.items()}
    assert client.post("/translate", files=fields).json() == {"translatedText": expected}
    assert client.post("/translate", files={**fields, "q": ("a.txt", f"{TEXT['q']}\r\n\r\n--")}).json() == {
        "translatedText": f"{expected}\r\n\r\n--"
    }
    assert client.post("/translate", json={**TEXT, "source": "auto"}).json() == {
        "translatedText": expected,
        "detectedLanguage": {"language": "en", "confidence": 0.0},  # nobody has looked
    }
    nothing = dict.fromkeys(("format", "alternatives", "scores", "api_key"))  # as Mastodon sends them
    assert client.post("/translate", json={**TEXT, **nothing}).json() == {"translatedText": expected}
    assert client.get("/languages").json() == [
        {"code": "en", "name": "English", "targets": ["de"]},
        {"code": "de", "name": "German", "targets": []},
    ]
    assert client.get("/health").json() == {"status": "ok"}
    assert 'heedful_requests_total{path="/translate",status="200"}' in client.get("/metrics").text


def test_scores_tell_which_text_to_look_at_again(serving, boxed):
    client, odd = serving(), "Colourless green ideas sleep furiously."
    of_each = {text: next(boxed.translate([text]))[0].score for text in (TEXT["q"], odd)}
    assert client.post("/translate", json={**TEXT, "scores": True}).json()["scores"] == of_each[TEXT["q"]]
    texts = [f"{TEXT['q']} {odd}", TEXT["q"], "42"]
    scores = client.post("/translate", json={**TEXT, "q": texts, "scores": True}).json()["scores"]
    assert scores == [min(of_each.values()), of_each[TEXT["q"]], None]
    assert "scores" not in client.post("/translate", json={**TEXT, "q": "42", "scores": True}).json()


def test_a_client_written_for_libretranslate_works_unchanged(serving, boxed):
    theirs = LibreTranslateAPI(str(serving().base_url))
    assert theirs.translate(TEXT["q"], "en", "de") == boxed.translate_document(TEXT["q"])
    assert theirs.languages()[0]["code"] == "en"


@pytest.mark.parametrize(
    ("limits", "changes", "status", "says"),
    [
        ({"characters": 10}, {}, 413, "at most 10"),
        ({"texts": 1}, {"q": ["a", "b"]}, 413, "at most 1"),
        ({"alternatives": 1}, {"alternatives": 2}, 422, "at most 1"),
        ({"share": 1}, {"q": ["Hello!", "Where are you?"]}, 413, "at most 1"),
        ({"queue": 1}, {"q": "Hello! Where are you?"}, 413, "at most 1"),
        ({"seconds": 0.001}, {}, 503, "not done"),
        ({}, {"target": "fr"}, 400, "here are en to de"),
        ({}, {"source": "\ud800"}, 400, "here are en to de"),
        ({}, {"q": 3}, 422, "q"),
        ({}, {"format": "pdf"}, 422, "format"),
    ],
)
def test_what_is_too_much_or_wrong_is_said(serving, limits, changes, status, says):
    answer = serving(**limits).post("/translate", content=json.dumps({**TEXT, **changes}))  # httpx sends no \ud800
    assert answer.status_code == status
    assert says in answer.json()["error"]
    assert ("retry-after" in answer.headers) == (status in (429, 503))


def test_what_nobody_foresaw_is_counted_and_answered_like_the_rest(serving, monkeypatch):
    async def fail(*_, **__):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(Batcher, "translate", fail)
    client = serving()
    answer = client.post("/translate", json=TEXT)
    assert (answer.status_code, "its log says how" in answer.json()["error"]) == (500, True)
    assert "content-security-policy" in answer.headers
    assert 'heedful_requests_total{path="/translate",status="500"} 1.0' in client.get("/metrics").text


def test_a_request_that_does_not_arrive_is_not_waited_for(serving, monkeypatch):
    monkeypatch.setattr("heedful.serve.messages.ARRIVAL", 0.2)
    url = serving().base_url
    with socket.create_connection((url.host, url.port), timeout=20) as slow:
        slow.sendall(b"POST /translate HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n{")
        answer = b"".join(iter(lambda: slow.recv(1000), b""))  # to the end: nothing more is read from this client
        assert answer.startswith(b"HTTP/1.1 408")


def test_as_many_characters_as_are_allowed_fit_into_a_form(serving):
    answer = serving(characters=60_000).post("/translate", data={**TEXT, "q": "\U0001f408" * 59_999 + "."})
    assert answer.status_code == 200, answer.text


def test_no_alternative_is_the_translation_itself(serving):
    answer = serving().post("/translate", json={**TEXT, "q": "42", "alternatives": 2}).json()
    assert (answer["translatedText"], answer["alternatives"]) == ("42", [])


def test_sentences_wait_until_they_are_taken(boxed):
    server = make_app([boxed]).state.server
    (batcher,) = server.batchers.values()

    async def fill():
        waiting = asyncio.create_task(batcher.translate("somebody", [Sentence("Hello."), Sentence("Good morning.")]))
        await asyncio.sleep(0)
        seen = server.registry.get_sample_value("heedful_waiting_sentences")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return seen, server.registry.get_sample_value("heedful_waiting_sentences")

    assert asyncio.run(fill()) == (2, 0)


@pytest.mark.parametrize(("of_client", "status"), [(True, 429), (False, 503)])
def test_who_finds_no_room_is_told_when_to_come_again(serving, monkeypatch, of_client, status):
    async def full(*_, **__):
        raise TooManyError("no room; send fewer at a time", of_client=of_client)

    monkeypatch.setattr(Batcher, "translate", full)
    answer = serving().post("/translate", json=TEXT)
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "1")
    assert "fewer at a time" in answer.json()["error"]


def test_the_queue_has_room_for_so_many_of_all_clients(boxed):
    async def fill():
        batcher = Batcher(boxed, ServeConfig(queue=1))
        first = asyncio.create_task(batcher.translate("a", [Sentence("One.")]))
        await asyncio.sleep(0)
        with pytest.raises(TooManyError, match="try again soon") as error:
            await batcher.translate("b", [Sentence("Two.")])
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        return error.value.of_client

    assert not asyncio.run(fill())


def test_one_clients_texts_that_are_asked_for_again_do_not_shut_others_out(boxed):
    async def fill():
        batcher = Batcher(boxed, ServeConfig(share=2, queue=4))
        many = [Sentence(f"{number}.") for number in range(9)]  # as a text of many placeholders becomes
        waiting = [asyncio.create_task(batcher.translate("a", many, admitted=True))]
        await asyncio.sleep(0)
        waiting.append(asyncio.create_task(batcher.translate("b", [Sentence("One."), Sentence("Two.")])))
        await asyncio.sleep(0)
        assert batcher.waiting == 11
        with pytest.raises(TooManyError):
            await batcher.translate("c", [Sentence("Three.")])
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(fill())


def test_pages_of_other_origins_may_ask_where_they_are_named(serving):
    asks = {"origin": "https://intranet.example", "access-control-request-method": "POST"}
    for origins, allowed in (((), None), (("https://intranet.example",), "https://intranet.example")):
        client = serving(origins=origins)
        assert client.options("/translate", headers=asks).headers.get("access-control-allow-origin") == allowed
        answer = client.post("/translate", json=TEXT, headers={"origin": asks["origin"]})
        assert answer.headers.get("access-control-allow-origin") == allowed
        assert answer.headers["cross-origin-resource-policy"] == ("cross-origin" if allowed else "same-origin")


def test_no_json_and_half_a_character(serving):
    client = serving()
    assert client.post("/translate", content=b"{").status_code == 422
    half = json.dumps({**TEXT, "q": "cat \ud800 dog"}).encode()
    assert client.post("/translate", content=half).status_code == 200


def test_keys_are_asked_for_and_kept_as_hashes(serving, tmp_path):
    path = tmp_path / "keys"
    key = new_key(path)
    assert key not in path.read_text()
    client = serving(keys=path)
    assert client.post("/translate", json=TEXT).status_code == 403
    assert client.post("/translate", json={**TEXT, "api_key": key + "x"}).status_code == 403
    assert client.post("/explain", json=TEXT).status_code == 403
    assert client.post("/explain", json={**TEXT, "api_key": key}).status_code == 200
    assert [client.get(f"/{open_to_all}").status_code for open_to_all in ("languages", "health", "metrics")] == [
        200
    ] * 3
    assert client.post("/translate", json={**TEXT, "api_key": key}).status_code == 200
    path.write_text(path.read_text().strip())  # by an editor that leaves no line end
    other = new_key(path)
    for known in (key, other):
        assert client.post("/translate", json={**TEXT, "api_key": known}).status_code == 200
    path.write_text("\n".join(path.read_text().split()[1:]))
    assert client.post("/translate", json={**TEXT, "api_key": key}).status_code == 403, "it was withdrawn"
    assert client.post("/translate", json={**TEXT, "api_key": other}).status_code == 200
    path.write_text("plain")
    with pytest.raises(HeedfulError, match="not a file of hashed keys"):
        new_key(path)
    assert path.read_text() == "plain"
    assert client.post("/translate", json={**TEXT, "api_key": other}).status_code == 403
    with pytest.raises(HeedfulError, match="--new-key"):
        Keys(path)


def test_explain_has_everything_the_page_shows(serving, boxed):
    client = serving()
    text = {**TEXT, "q": "Hello! The dog sleeps."}
    found = client.post("/explain", json={**text, "sentence": 1}).json()
    assert found["sentences"] == ["Hello!", "The dog sleeps."]
    assert found["text"] == boxed.explain("The dog sleeps.").text
    assert len(found["attention"]["cross.0"]) == 4
    assert found["steps"]["differences"]["output"] < 1e-4
    assert len(found["positions"]) == len(found["source_pieces"])
    other = client.post("/explain", json={**text, "without": ["cross.0", "cross.1"]}).json()
    assert other["text"] != found["text"]
    second = client.post("/explain", json={**text, "rank": 2}).json()
    assert [second["text"], second["score"]] == second["alternatives"][1]
    assert client.post("/explain", json={**text, "rank": 99}).status_code == 400
    assert client.post("/explain", json={**text, "sentence": 2}).status_code == 400
    assert client.post("/explain", json={**text, "without": ["cross.9"]}).status_code == 400
    assert client.post("/explain", json={**text, "layer": 9}).status_code == 400


def test_what_would_be_too_much_to_explain_is_refused(serving, monkeypatch):
    client = serving()
    long = client.post("/explain", json={**TEXT, "q": "猫" * 290})
    assert long.status_code == 413
    assert "may have 256" in long.json()["error"]
    assert client.post("/explain", content=json.dumps({**TEXT, "without": ["\ud800"]})).status_code == 400
    for limit, status in (("EXPLANATIONS", 503), ("OWN_EXPLANATIONS", 429)):
        monkeypatch.setattr(f"heedful.serve.app.{limit}", 0)
        busy = client.post("/explain", json=TEXT)
        assert (busy.status_code, busy.headers["retry-after"]) == (status, "1")


def test_a_key_that_nobody_asks_for_does_not_make_another_client(boxed, tmp_path):
    server = make_app([boxed]).state.server
    request = Request({"type": "http", "client": ("192.0.2.1", 1)})
    assert server.client(request, "first") == server.client(request, "second") == "192.0.2.1"
    server.keys.path = tmp_path / "keys"
    assert server.client(request, "first") == "first"


def test_the_steps_of_a_line_in_capitals_are_those_of_what_the_model_reads(serving):
    found = serving().post("/explain", json={**TEXT, "q": "WHERE IS THE STATION?"}).json()
    assert found["text"].isupper()
    assert len(found["positions"]) == len(found["source_pieces"])


def test_what_is_explained_is_what_was_translated(serving):
    client = serving()
    title, plain = (
        client.post("/explain", json={**TEXT, "q": f"Where {rest} Station?"}).json() for rest in ("Is The", "is the")
    )
    assert title["source_pieces"] == client.post("/explain", json=TEXT).json()["source_pieces"]
    assert plain["source_pieces"] != title["source_pieces"]
    found = client.post("/explain", json={**TEXT, "without": ["encoder.0"]}).json()
    assert not np.any(found["steps"]["steps"]["output"]["numbers"])


@pytest.mark.parametrize(
    "changes", [{"beam": 1}, {"patience": 0.25}, {"beam": 6, "patience": 0.0}, {"patience": math.inf}]
)
def test_what_is_explained_is_what_this_model_translates(served, boxed, changes):
    lines = [
        "You'd better not go out tonight.",
        "I took it for granted that he would come.",
        "Keep an eye on the bags.",
    ]
    other = replace(boxed, search=replace(boxed.search, **changes))
    with served(make_app([other])) as address, httpx.Client(base_url=address, timeout=60) as client:
        for line in lines:
            translated = client.post("/translate", json={**TEXT, "q": line}).json()["translatedText"]
            assert client.post("/explain", json={**TEXT, "q": line}).json()["text"] == translated


def test_a_text_that_is_asked_for_again_in_more_pieces_than_a_client_may_send_is_translated(serving, monkeypatch):
    monkeypatch.setattr("heedful.text.document.STAND_INS", ())  # so that what stands around placeholders goes alone
    text = "Good morning {name}, where is the station {station}?"
    answer = serving(share=1, queue=1).post("/translate", json={**TEXT, "q": text})
    assert answer.status_code == 200
    assert "{name}" in answer.json()["translatedText"]


def test_pages_allow_nothing_from_elsewhere(serving):
    client = serving()
    for path in ("/", "/page.js", "/views.js", "/style.css", "/page.css"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    for path in ("/../pyproject.toml", "/%2e%2e/pyproject.toml"):  # as they stand, which httpx does not send
        url = client.base_url
        with socket.create_connection((url.host, url.port), timeout=20) as raw:
            raw.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".encode())
            assert b"".join(iter(lambda: raw.recv(1000), b"")).startswith(b"HTTP/1.1 404")


def test_waiting_sentences_are_translated_together_in_turns_and_as_if_alone(boxed):
    sentences = [Sentence(f"I have {n} cats.") for n in range(40)]
    batches = []

    async def both():
        batcher = Batcher(boxed, ServeConfig(batch=8), batches.append)
        greedy = asyncio.create_task(batcher.translate("greedy", sentences))
        modest = asyncio.create_task(batcher.translate("modest", sentences[:2]))
        await asyncio.sleep(0)
        order = []
        greedy.add_done_callback(lambda _: order.append("greedy"))
        modest.add_done_callback(lambda _: order.append("modest"))
        batcher.start()
        found = await greedy, await modest
        await batcher.stop()
        return *found, order

    greedy, modest, order = asyncio.run(both())
    alone = [next(boxed.translate([sentence.text]))[0].text for sentence in sentences]
    assert [found[0].text for found in greedy] == alone
    assert [found[0].text for found in modest] == alone[:2]
    assert order == ["modest", "greedy"]
    assert max(batches) == 8


def test_a_batch_waits_for_one_explanation_at_most(boxed):
    order = []

    def translate_each(wanted, batch):
        order.append("batch")
        return [[] for _ in wanted]

    async def all_of_them():
        batcher = Batcher(SimpleNamespace(search=boxed.search, translate_each=translate_each), ServeConfig(wait=0))
        begun, go_on = Event(), Event()

        def explain(number):
            begun.set()
            go_on.wait(20)
            order.append(number)

        explanations = [asyncio.create_task(batcher.call(explain, number)) for number in range(4)]
        batcher.start()
        await asyncio.to_thread(begun.wait, 20)
        batch = asyncio.create_task(batcher.translate("somebody", [Sentence("Hello.")]))
        while not batcher.waiting:
            await asyncio.sleep(0)
        while batcher.waiting:  # until it is taken, and waits for the thread
            await asyncio.sleep(0.01)
        go_on.set()
        await asyncio.gather(batch, *explanations)
        await batcher.stop()

    asyncio.run(all_of_them())
    assert order.index("batch") <= 1, order


def test_who_leaves_before_an_explanation_begins_takes_it_back(boxed):
    done = []

    async def all_of_them():
        batcher = Batcher(boxed, ServeConfig(wait=0))
        begun, go_on = Event(), Event()

        def work(number):
            begun.set()
            go_on.wait(20)
            done.append(number)

        batch = asyncio.create_task(batcher._compute(work, 0))  # as a batch has the thread
        await asyncio.to_thread(begun.wait, 20)
        leaving, staying = (asyncio.create_task(batcher.call(work, number)) for number in (1, 2))
        await asyncio.sleep(0.05)
        leaving.cancel()
        await asyncio.sleep(0.05)
        go_on.set()
        await asyncio.gather(batch, staying)
        begun.clear(), go_on.clear()
        running, last = (asyncio.create_task(batcher.call(work, number)) for number in (3, 4))
        await asyncio.to_thread(begun.wait, 20)
        running.cancel()  # which goes on, and the other waits for it, outside the thread's own queue
        await asyncio.sleep(0.05)
        next_batch = asyncio.create_task(batcher._compute(work, 5))
        await asyncio.sleep(0.05)
        go_on.set()
        await asyncio.gather(last, next_batch)
        await batcher.stop()

    asyncio.run(all_of_them())
    assert done == [0, 2, 3, 5, 4]


def test_a_model_whose_recipe_samples_is_searched(boxed):
    sampling = replace(boxed, search=replace(boxed.search, sample=True, temperature=9.0))

    async def one():
        batcher = Batcher(sampling, ServeConfig())
        batcher.start()
        found = await batcher.translate("a", [Sentence("Where is the station?")])
        await batcher.stop()
        return found

    assert asyncio.run(one())[0][0] == next(boxed.translate(["Where is the station?"]))[0]


def test_a_sentence_that_cannot_be_translated_fails_alone(boxed, monkeypatch):
    translate = boxed.translate

    def choosy(lines, *given, **named):
        lines = list(lines)
        if "Two." in lines:
            raise HeedfulError("too long")
        return translate(lines, *given, **named)

    async def both():
        batcher = Batcher(boxed, ServeConfig())
        wanted = [asyncio.create_task(batcher.translate(name, [Sentence(name)])) for name in ("One.", "Two.")]
        await asyncio.sleep(0)
        batcher.start()
        found = await asyncio.gather(*wanted, return_exceptions=True)
        await batcher.stop()
        return found

    monkeypatch.setattr(boxed, "translate", choosy)
    one, two = asyncio.run(both())
    assert one[0][0].text == next(translate(["One."]))[0].text
    assert isinstance(two, HeedfulError)


def test_who_leaves_frees_the_place(boxed):
    async def leave():
        batcher = Batcher(boxed, ServeConfig(share=2))
        gone = asyncio.create_task(batcher.translate("a", [Sentence("One."), Sentence("Two.")]))
        await asyncio.sleep(0)
        with pytest.raises(TooManyError):
            await batcher.translate("a", [Sentence("Three.")])
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert batcher.waiting == 0
        batcher.start()
        found = await batcher.translate("a", [Sentence("Three.")])
        await batcher.stop()
        return found

    assert asyncio.run(leave())[0][0].text


def test_where_one_text_is_refused_nobody_waits_for_the_others(boxed):
    async def refused():
        server = make_app([boxed], ServeConfig(share=3, queue=9)).state.server
        batcher = server.batchers["en", "de"]  # not started: all that is asked for waits
        first = asyncio.create_task(server.translate("a", TranslateRequest(**TEXT | {"q": ["One.", "Two."]})))
        await asyncio.sleep(0.01)
        assert batcher.waiting == 2
        with pytest.raises(TooManyError) as error:
            await server.translate("a", TranslateRequest(**TEXT | {"q": ["Three.", "Four."]}))
        await asyncio.sleep(0.01)
        assert error.value.of_client
        assert batcher.waiting == 2
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert batcher.waiting == 0

    asyncio.run(refused())


def test_two_models_of_the_same_languages_are_refused(boxed):
    with pytest.raises(HeedfulError, match="two models"):
        make_app([boxed, boxed])
    with pytest.raises(HeedfulError, match="languages"):
        make_app([replace(boxed, languages=())])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--port", "99999"), "65535"),
        (("--batch", "0"), "at least 1"),
        (("--keys", "nowhere"), "--new-key"),
        (("--host", "203.0.113.1"), "choose another"),
        (("--device", "nonsense"), "cpu always is"),
        (("--weights", "int8"), "leave --weights out"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(arguments, says, tmp_path):
    environment = os.environ | {"HEEDFUL_COMPILE": "0"}  # so that there are no weights of 8 bits
    command = [*HEEDFUL, "serve", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60)
    assert ended.returncode == 2
    assert says in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_model_of_no_numbers_is_refused_before_an_address_is_said(boxed, tmp_path):
    shutil.copytree(locate("en-de"), tmp_path / "model")
    weights = read_weights(tmp_path / "model" / WEIGHTS)
    write_weights(tmp_path / "model" / WEIGHTS, {name: tensor * math.nan for name, tensor in weights.items()})
    command = [*HEEDFUL, "serve", tmp_path / "model", "--port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert "its weights are damaged" in ended.stderr


def test_a_header_of_a_part_costs_no_more_than_its_length():
    head = f'content-disposition: form-data; name="{";" * 300_000}"'  # the standard library reads it for minutes
    body, began = f"--b\r\n{head}\r\n\r\ntext\r\n--b--\r\n", time.process_time()
    assert _form("multipart/form-data; boundary=b", body.encode()) == {}
    assert time.process_time() - began < 10


def test_sigterm_ends_after_what_is_running_was_answered(boxed):
    command = [*HEEDFUL, "serve", "en-de", "--port", "0"]
    long = {**TEXT, "q": "\n".join(f"The little dog number {n} sleeps on the old sofa." for n in range(300))}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        address = process.stderr.readline().split()[0]
        answers = []
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{address}/translate", json=long, timeout=60))
        )
        asking.start()
        while "heedful_batch_sentences_count 0.0" in httpx.get(f"{address}/metrics").text and asking.is_alive():
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        asking.join(60)
        assert answers[0].json()["translatedText"].count("\n") == 299
        assert process.wait(60) in (0, -signal.SIGTERM)
        assert process.stderr.read() == ""


@pytest.mark.parametrize("positions", [3, 9, 97])
def test_a_model_of_few_positions_is_made_ready_too(served, tiny_model, toy_vocabulary, positions):
    size = toy_vocabulary.sizes[0]
    model = tiny_model(source_size=size, target_size=size, positions="learned", max_positions=positions)
    translator = Translator(model, toy_vocabulary, languages=("en", "de"))
    with served(make_app([translator])) as address:
        answer = httpx.post(f"{address}/translate", json={**TEXT, "q": "a"}, timeout=60)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("families", [["convolution"], ["transformer", "transformer"], ["lstm"]])
def test_what_a_model_adds_for_positions_is_shown_of_any_family(served, toy_vocabulary, families):
    sizes = {"d_model": 16, "d_ff": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    models = [build_model(ModelConfig(family=one, **sizes), *toy_vocabulary.sizes).eval() for one in families]
    translator = Translator(Ensemble(models) if models[1:] else models[0], toy_vocabulary, languages=("en", "de"))
    with served(make_app([translator])) as address:
        found = httpx.post(f"{address}/explain", json={**TEXT, "q": "the cat"}, timeout=60).json()
    assert found["steps"] is None
    if families == ["lstm"]:
        assert found["positions"] is None
    else:
        expected = models[0].source_embedding.positions(0, len(found["source_pieces"]))
        assert np.allclose(found["positions"], expected.detach(), atol=1e-4)


def test_an_address_that_is_not_there_is_refused_as_everything_else_is(serving):
    client = serving()
    for answer, status in ((client.post("/detect", json={"q": "Hello"}), 404), (client.get("/translate"), 405)):
        assert answer.status_code == status
        assert answer.json().keys() == {"error"}
        assert "/openapi.json" in answer.json()["error"]


def test_a_forms_type_is_known_in_capitals_too(serving, boxed):
    client, expected = serving(), {"translatedText": boxed.translate_document(TEXT["q"])}
    for type_of, body in (
        ("Application/X-WWW-Form-Urlencoded", "q=Where+is+the+station%3F&source=en&target=de"),
        (
            "Multipart/Form-Data; boundary=Ab",
            "".join(
                f'--Ab\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
                for name, value in TEXT.items()
            )
            + "--Ab--\r\n",
        ),
    ):
        assert client.post("/translate", content=body.encode(), headers={"Content-Type": type_of}).json() == expected
