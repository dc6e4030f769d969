"""The HTTP interface: LibreTranslate's, with /explain beside it, and the page."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import prometheus_client as prometheus
from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse
from starlette.exceptions import HTTPException

from heedful.errors import HeedfulError
from heedful.inspection import attention_page
from heedful.inspection.worked_example import steps_of
from heedful.model.recorder import seen
from heedful.model.transformer import Embedding, Transformer
from heedful.serve.batching import Batcher
from heedful.serve.limits import Keys, ServeConfig
from heedful.serve.messages import (
    ERRORS,
    Body,
    Detected,
    ExplainRequest,
    Language,
    Refused,
    Translated,
    TranslateRequest,
    body_of,
    read,
    unless_gone,
)
from heedful.text.document import Sentence, Translating, as_read, clean, split, translating
from heedful.translator import Translator

T = TypeVar("T")
EXPLANATIONS = 16  # that may wait, since others wait for the same thread
OWN_EXPLANATIONS = 4  # of these, one client's
TOKENS = 256  # of a sentence to explain: its attention grows with their square
PAGE = Path(__file__).with_name("page")
FILES = {  # what the page is made of, and nothing else is served
    "/": PAGE / "index.html",
    "/page.css": PAGE / "page.css",
    "/page.js": PAGE / "page.js",
    "/style.css": attention_page.PAGE / "style.css",
    "/views.js": attention_page.PAGE / "views.js",
}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
NAMES = {
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "it": "Italian",
    "nl": "Dutch",
    "pt": "Portuguese",
}


class Server:
    """The models that are served, their queues, and what was counted."""

    def __init__(self, translators: Sequence[Translator], config: ServeConfig) -> None:
        self.config, self.keys, self.ready = config, Keys(config.keys), False
        self.explaining = Counter[str]()  # how many explanations of each client wait
        self.registry = prometheus.CollectorRegistry()
        self.requests = prometheus.Counter(
            "heedful_requests", "Requests by path and status", ["path", "status"], registry=self.registry
        )
        self.seconds = prometheus.Histogram(
            "heedful_request_seconds", "Time from request to answer", ["path"], registry=self.registry
        )
        # labels are looked up anew each time, under a lock
        self.requests_of, self.seconds_of = cache(self.requests.labels), cache(self.seconds.labels)
        self.sizes = prometheus.Histogram(
            "heedful_batch_sentences",
            "Sentences translated together",
            buckets=[1, 2, 4, 8, 16, 32, 64, 128],
            registry=self.registry,
        )
        self.waiting = prometheus.Gauge("heedful_waiting_sentences", "Sentences that wait", registry=self.registry)
        self.batchers: dict[tuple[str, str], Batcher] = {}
        for translator in translators:
            pair = _pair(translator)
            if pair in self.batchers:
                raise HeedfulError(f"two models translate {pair[0]} to {pair[1]}: give one of them")
            self.batchers[pair] = Batcher(translator, config, self.sizes.observe)
        self.waiting.set_function(lambda: sum(batcher.waiting for batcher in self.batchers.values()))
        self._ablated = lru_cache(2)(self._without)  # each is a whole model

    def _without(self, pair: tuple[str, str], heads: tuple[str, ...]) -> Translator:
        return self.batchers[pair].translator.without(*heads)

    def find(self, source: str, target: str) -> tuple[str, str]:
        """Return the pair of languages that is meant."""
        pairs = [pair for pair in self.batchers if pair[1] == target and source in (pair[0], "auto")]
        if len(pairs) == 1:
            return pairs[0]
        known = ", ".join(f"{a} to {b}" for a, b in self.batchers)
        why = "name the source: several could be meant" if pairs else f"no model translates {source} to {target}"
        raise Refused(400, f"{why}; here are {known}")

    def client(self, request: Request, key: str) -> str:
        """Return who asks: the key, where keys are known ones, else the address."""
        return key if self.keys.path else request.client.host if request.client else ""

    def check_key(self, key: str) -> None:
        """Refuse who has no key where one is needed."""
        if not self.keys.allow(key):
            raise Refused(403, "the API key is missing or unknown; send yours as api_key")

    async def answer(
        self, request: Request, path: str, kind: type[Body], work: Callable[[Body], Awaitable[T]]
    ) -> T | JSONResponse:
        """Read a request, do its work, and count it; what is refused is answered by an error."""
        with self.seconds_of(path).time():
            try:
                wanted = await read(request, kind, self.config)
                self.check_key(getattr(wanted, "api_key", ""))
                result: T | JSONResponse = await unless_gone(request, work(wanted), self.config.seconds)
                status = 200
            except Refused as refused:
                status, result = refused.status, refused.answer()
            except Exception:
                logging.getLogger("uvicorn.error").exception("heedful: %s failed", path)
                status, result = 500, Refused(500, "the server failed; its log says how: try again").answer()
        self.requests_of(path, status).inc()
        return result

    async def translate(self, client: str, wanted: TranslateRequest) -> Translated:
        """Translate all texts of a request."""
        texts = [wanted.q] if isinstance(wanted.q, str) else wanted.q
        limits = self.config
        if len(texts) > limits.texts:
            raise Refused(413, f"{len(texts)} texts; send at most {limits.texts} at a time")
        if sum(map(len, texts)) > limits.characters:
            raise Refused(413, f"{sum(map(len, texts)):,} characters; send at most {limits.characters:,} at a time")
        if wanted.alternatives > limits.alternatives:
            raise Refused(422, f"{wanted.alternatives} alternatives; ask for at most {limits.alternatives}")
        pair, count = self.find(wanted.source, wanted.target), 1 + wanted.alternatives
        markup, fits = wanted.format == "html", self.batchers[pair].translator.has_room_for
        begun = [_begin(translating(text, pair[0], markup=markup, count=count, fits=fits)) for text in texts]
        sentences, most = sum(len(lot) for _, lot, _ in begun), min(limits.share, limits.queue)
        if sentences > most:
            raise Refused(413, f"{sentences:,} sentences; send at most {most:,} at a time")
        tasks = [asyncio.ensure_future(self._text(client, pair, count, *each)) for each in begun]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # where one was refused, nobody waits for the others
                task.cancel()
        first = [outputs[0] for outputs, _ in found]
        rest = [list(dict.fromkeys(outputs))[1:] for outputs, _ in found] if wanted.alternatives else None
        scores = [score for _, score in found] if wanted.scores else None
        taken = Detected(language=pair[0]) if wanted.source == "auto" else None
        if isinstance(wanted.q, str):
            rest_of_one, score = rest and rest[0], scores and scores[0]
            return Translated(translatedText=first[0], alternatives=rest_of_one, scores=score, detectedLanguage=taken)
        return Translated(translatedText=first, alternatives=rest, scores=scores, detectedLanguage=taken)

    async def _text(
        self, client: str, pair: tuple[str, str], count: int, steps: Translating, lot: list[Sentence], done: list[str]
    ) -> tuple[list[str], float | None]:
        """Return `count` translations of a text, and the lowest score of all that its sentences were answered."""
        scores: list[float] = []
        while lot:
            answers = await self.batchers[pair].translate(client, lot, count, admitted=bool(scores))
            scores += [outputs[0].score for outputs in answers]
            try:
                lot = steps.send(answers)
            except StopIteration as finished:
                return list(finished.value), min(scores)
        return done, None

    async def explain(self, client: str, wanted: ExplainRequest) -> dict[str, Any]:
        """Translate one sentence of a text, and return all that can be seen of how."""
        if len(wanted.q) > self.config.characters:
            raise Refused(413, f"{len(wanted.q):,} characters; send at most {self.config.characters:,}")
        pair = self.find(wanted.source, wanted.target)
        fits = self.batchers[pair].translator.has_room_for
        sentences = [part.text for part in split(wanted.q, pair[0], fits=fits) if part.translate]
        if not sentences:  # an address, say, or a number
            return {"sentences": [], "sentence": 0}
        if wanted.sentence >= len(sentences):
            raise Refused(400, f"sentence {wanted.sentence}: the text has {len(sentences)}, from 0")
        text = as_read(sentences[wanted.sentence], pair[0])
        [tokens], _ = self.batchers[pair].translator.reader.encode([text])
        if len(tokens) > TOKENS:
            raise Refused(413, f"{len(tokens)} tokens in this sentence; one to explain may have {TOKENS}")
        if self.explaining[client] >= OWN_EXPLANATIONS:
            raise Refused(429, f"{self.explaining[client]} of your explanations wait; try again soon", retry_after=1)
        if self.explaining.total() >= EXPLANATIONS:
            raise Refused(503, "too many explanations wait; try again soon", retry_after=1)
        self.explaining[client] += 1
        try:
            found = await self.batchers[pair].call(self._explain, pair, text, wanted)
        finally:
            self.explaining[client] -= 1
            self.explaining += Counter()  # forgets who has none
        return {"sentences": sentences, "sentence": wanted.sentence, **found}

    def _explain(self, pair: tuple[str, str], text: str, wanted: ExplainRequest) -> dict[str, Any]:
        whole = self.batchers[pair].translator
        heads = tuple(sorted(set(wanted.without)))
        translator = self._ablated(pair, heads) if heads else whole
        found = translator.explain(text, whole.search.with_all_outputs(), rank=wanted.rank)
        table = {**found.to_table(), "without": heads, "steps": None, "positions": None}
        embedding = getattr(seen(whole.model), "source_embedding", None)
        if isinstance(embedding, Embedding) and embedding.has_positions:
            table["positions"] = np.round(embedding.positions(0, len(found.source_pieces)).tolist(), 4).tolist()
        if isinstance(whole.model, Transformer):
            example = steps_of(translator, text, wanted.layer, wanted.head)
            for step in example["steps"].values():
                step["numbers"] = np.round(step["numbers"], 4).tolist()
            table["steps"] = example
        return table


def make_app(translators: Sequence[Translator], config: ServeConfig | None = None) -> FastAPI:
    """Return the application that serves these models.

    Raises:
        HeedfulError: two models translate between the same languages.
    """
    server = Server(translators, config or ServeConfig())

    @asynccontextmanager
    async def running(_app: FastAPI) -> AsyncIterator[None]:
        for batcher in server.batchers.values():
            await batcher.call(_warm_up, batcher.translator, server.config.batch)
            batcher.start()
        server.ready = True
        yield
        server.ready = False
        for batcher in server.batchers.values():
            await batcher.stop()

    # no pages of FastAPI's own: they would fetch their scripts from elsewhere
    app = FastAPI(title="heedful", description=__doc__ or "", docs_url=None, redoc_url=None, lifespan=running)
    app.state.server = server

    @app.post("/translate", response_model=Translated, responses=ERRORS, openapi_extra=body_of(TranslateRequest))
    async def translate(request: Request) -> Response:
        """Translate texts: paragraphs, lines, placeholders and tags are kept."""

        async def work(wanted: TranslateRequest) -> Response:
            found = await server.translate(server.client(request, wanted.api_key), wanted)
            return Response(found.model_dump_json(exclude_none=True), media_type="application/json")

        return await server.answer(request, "/translate", TranslateRequest, work)

    @app.post("/explain", responses=ERRORS, openapi_extra=body_of(ExplainRequest))
    async def explain(request: Request) -> dict[str, Any]:
        """Explain the translation of a sentence: pieces, probabilities, attention, the beam's tree, every step."""

        async def work(wanted: ExplainRequest) -> dict[str, Any]:
            return await server.explain(server.client(request, wanted.api_key), wanted)

        return await server.answer(request, "/explain", ExplainRequest, work)  # type: ignore[return-value]

    @app.get("/languages")
    async def languages() -> list[Language]:
        """Return the languages, and which can be translated into which."""
        codes = dict.fromkeys([source for source, _ in server.batchers] + [target for _, target in server.batchers])
        return [
            Language(code=code, name=NAMES.get(code, code), targets=[b for a, b in server.batchers if a == code])
            for code in codes
        ]

    @app.exception_handler(HTTPException)
    async def absent(request: Request, error: HTTPException) -> JSONResponse:
        """Say in the form of all other errors that there is no such address, or not by this method."""
        wanted = f"{request.method} {request.url.path}: {error.detail}; /openapi.json tells what there is"
        return JSONResponse({"error": clean(wanted)}, error.status_code, error.headers)

    @app.get("/health", responses={503: {"description": "Starting or ending"}})
    async def health(response: Response) -> dict[str, Literal["ok", "not ready"]]:
        """Tell whether requests are answered."""
        response.status_code = 200 if server.ready else 503
        return {"status": "ok" if server.ready else "not ready"}

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Return what was counted, as Prometheus reads it."""
        return Response(prometheus.generate_latest(server.registry), media_type="text/plain; version=0.0.4")

    for path, file in FILES.items():
        app.get(path, include_in_schema=False)(_serving(file))
    origins = list(server.config.origins)
    # for pages of other origins to use what /translate answers, browsers want it said twice
    headers = {**HEADERS, "cross-origin-resource-policy": "cross-origin"} if origins else HEADERS
    app.add_middleware(_Headers, headers)
    if origins:
        app.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["*"])
    return app


class _Headers:
    """Security headers on every answer."""

    def __init__(self, app: Any, headers: dict[str, str]) -> None:
        self.app = app
        self.headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self.headers]
            await send(message)

        await self.app(scope, receive, with_headers)


def _pair(translator: Translator) -> tuple[str, str]:
    if len(translator.languages) != 2:
        raise HeedfulError(
            "a model says no languages; tell it, with its folder for MODEL: "
            "heedful configure MODEL --languages en --languages de"
        )
    return translator.languages[0], translator.languages[1]


def _warm_up(translator: Translator, batch: int) -> None:
    """Pay for what a whole batch costs the first time, memory too, before anybody waits for it."""
    words = min(20, (translator.longest or 99) // 4)  # a model that learned few positions reads no long line
    list(translator.translate(["a " * words] * batch, batch=batch))


def _serving(file: Path) -> Callable[[], FileResponse]:
    def serve() -> FileResponse:
        return FileResponse(file, headers={"cache-control": "no-cache"})

    return serve


def _begin(steps: Translating) -> tuple[Translating, list[Sentence], list[str]]:
    """Return a text's translating, its first sentences, and, if there are none, what it comes to without."""
    try:
        return steps, next(steps), []
    except StopIteration as finished:
        return steps, [], list(finished.value)
