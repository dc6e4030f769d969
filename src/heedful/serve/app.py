"""The HTTP interface: LibreTranslate's, with /explain beside it, and the page."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qs

import numpy as np
import prometheus_client as prometheus
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect

from heedful.errors import HeedfulError
from heedful.inspection import attention_page
from heedful.inspection.worked_example import steps_of
from heedful.model.transformer import Transformer
from heedful.serve.batching import Batcher, TooManyError
from heedful.serve.limits import Keys, ServeConfig
from heedful.text.document import Sentence, Translating, as_read, clean, split, translating
from heedful.translator import Translator

T = TypeVar("T")
Body = TypeVar("Body", bound=BaseModel)
EXPLANATIONS = 16  # that may wait, since others wait for the same thread
PIECES = 256  # of a sentence to explain: its attention grows with their square
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


class TranslateRequest(BaseModel):
    """What LibreTranslate's clients send."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"q": "Where is the station?", "source": "en", "target": "de"}]}
    )
    q: str | list[str] = Field(description="A text, or a list of texts")
    source: str = Field(description="Code of its language; auto where only one model writes the target")
    target: str = Field(description="Code of the language to write")
    format: Literal["text", "html"] = Field("text", description="html: tags are kept")
    alternatives: int = Field(0, ge=0, description="How many other translations to return")
    api_key: str = Field("", description="Needed where the server was started with --keys")


class ExplainRequest(BaseModel):
    """A sentence to look into."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"q": "The cat sleeps.", "source": "en", "target": "de", "without": []}]}
    )
    q: str = Field(description="A text; one of its sentences is explained")
    source: str = Field(description="Code of its language")
    target: str = Field(description="Code of the language to write")
    sentence: int = Field(0, ge=0, description="Which sentence, from 0")
    without: list[str] = Field([], max_length=256, description='Heads switched off: "cross.1.0", or "cross.1" for all')
    rank: int = Field(1, ge=1, description="Which of the beam's outputs is explained; 1 = the best")
    layer: int = Field(0, ge=0, description="Encoder layer of the worked example")
    head: int = Field(0, ge=0, description="Its head")
    api_key: str = Field("", description="Needed where the server was started with --keys")


class Translated(BaseModel):
    """Translations: a text for a text, a list for a list."""

    translatedText: str | list[str]
    alternatives: list[str] | list[list[str]] | None = None


class Language(BaseModel):
    """A language that can be read, and those that it can be translated into."""

    code: str
    name: str
    targets: list[str]


class Problem(BaseModel):
    """What was wrong, and what to do."""

    error: str


class Refused(Exception):  # noqa: N818 - an answer, not an accident
    """A request that is answered by an error."""

    def __init__(self, status: int, error: str, retry_after: int | None = None) -> None:
        super().__init__(error)
        self.status, self.error, self.retry_after = status, clean(error), retry_after


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
    for status, description in {
        400: "A language, sentence, layer or head that there is not",
        403: "The API key is missing or unknown",
        413: "Too much text",
        422: "Not a valid request",
        429: "Too many sentences of this client wait",
        503: "Too busy, or it took too long",
    }.items()
}


class Server:
    """The models that are served, their queues, and what was counted."""

    def __init__(self, translators: Sequence[Translator], config: ServeConfig) -> None:
        self.config, self.keys, self.ready, self.explaining = config, Keys(config.keys), False, 0
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
            self.batchers[pair] = Batcher(translator, config, self._watch)
        self.ablated = lru_cache(8)(
            lambda translator_pair, heads: self.batchers[translator_pair].translator.without(*heads)
        )

    def _watch(self, batch: int, waiting: int) -> None:
        self.sizes.observe(batch)
        self.waiting.set(waiting)

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
        return key if self.keys.needed else request.client.host if request.client else ""

    def check_key(self, key: str) -> None:
        """Refuse who has no key where one is needed."""
        if not self.keys.allow(key):
            raise Refused(403, "the API key is missing or unknown; send yours as api_key")

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
        begun = [_begin(translating(text, pair[0], markup=wanted.format == "html", count=count)) for text in texts]
        sentences, most = sum(len(lot) for _, lot, _ in begun), min(limits.share, limits.queue)
        if sentences > most:
            raise Refused(413, f"{sentences:,} sentences; send at most {most:,} at a time")
        tasks = [asyncio.ensure_future(self._text(client, pair, count, *each)) for each in begun]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # where one was refused, nobody waits for the others
                task.cancel()
        first = [outputs[0] for outputs in found]
        rest = [list(dict.fromkeys(outputs[1:])) for outputs in found] if wanted.alternatives else None
        if isinstance(wanted.q, str):
            return Translated(translatedText=first[0], alternatives=rest and rest[0])
        return Translated(translatedText=first, alternatives=rest)

    async def _text(
        self, client: str, pair: tuple[str, str], count: int, steps: Translating, lot: list[Sentence], done: list[str]
    ) -> list[str]:
        admitted = False
        while lot:
            answers = await self.batchers[pair].translate(client, lot, count, admitted=admitted)
            admitted = True
            try:
                lot = steps.send(answers)
            except StopIteration as finished:
                return list(finished.value)
        return done

    async def explain(self, wanted: ExplainRequest) -> dict[str, Any]:
        """Translate one sentence of a text, and return all that can be seen of how."""
        if len(wanted.q) > self.config.characters:
            raise Refused(413, f"{len(wanted.q):,} characters; send at most {self.config.characters:,}")
        pair = self.find(wanted.source, wanted.target)
        sentences = [part.text for part in split(wanted.q, pair[0]) if part.translate]
        if not sentences:  # an address, say, or a number
            return {"sentences": [], "sentence": 0}
        if wanted.sentence >= len(sentences):
            raise Refused(400, f"sentence {wanted.sentence}: the text has {len(sentences)}, from 0")
        text = as_read(sentences[wanted.sentence])
        [pieces], _ = self.batchers[pair].translator.encode([text])
        if len(pieces) > PIECES:
            raise Refused(413, f"{len(pieces)} pieces in this sentence; one to explain may have {PIECES}")
        if self.explaining >= EXPLANATIONS:
            raise Refused(503, "too many explanations wait; try again soon", retry_after=1)
        self.explaining += 1
        try:
            found = await self.batchers[pair].call(self._explain, pair, text, wanted)
        finally:
            self.explaining -= 1
        return {"sentences": sentences, "sentence": wanted.sentence, **found}

    def _explain(self, pair: tuple[str, str], text: str, wanted: ExplainRequest) -> dict[str, Any]:
        whole = self.batchers[pair].translator
        heads = tuple(sorted(set(wanted.without)))
        translator = self.ablated(pair, heads) if heads else whole
        beam = max(whole.search.beam, 4)
        found = translator.explain(text, replace(whole.search, beam=beam, n_best=beam, sample=False), rank=wanted.rank)
        table = {**found.to_table(), "without": heads, "steps": None, "positions": None}
        if isinstance(whole.model, Transformer):
            example = steps_of(translator, text, wanted.layer, wanted.head)
            for step in example["steps"].values():
                step["numbers"] = np.round(step["numbers"], 4).tolist()
            table |= {"steps": example, "positions": example["steps"]["position"]["numbers"]}
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

    async def answered(request: Request, path: str, kind: type[Body], work: Callable[[Body], Awaitable[T]]) -> Any:
        with server.seconds_of(path).time():
            try:
                wanted = await _read(request, kind, server.config)
                server.check_key(getattr(wanted, "api_key", ""))
                result: Any = await _unless_gone(request, work(wanted), server.config.seconds)
                status = 200
            except Refused as refused:
                status, headers = refused.status, {}
                if refused.retry_after:
                    headers["retry-after"] = str(refused.retry_after)
                result = JSONResponse({"error": refused.error}, status, headers)
        server.requests_of(path, status).inc()
        return result

    @app.post("/translate", response_model=Translated, responses=ERRORS, openapi_extra=_body(TranslateRequest))
    async def translate(request: Request) -> Response:
        """Translate texts: paragraphs, lines, placeholders and tags are kept."""

        async def work(wanted: TranslateRequest) -> Response:
            found = await server.translate(server.client(request, wanted.api_key), wanted)
            return Response(found.model_dump_json(exclude_none=True), media_type="application/json")

        return await answered(request, "/translate", TranslateRequest, work)  # type: ignore[no-any-return]

    @app.post("/explain", responses=ERRORS, openapi_extra=_body(ExplainRequest))
    async def explain(request: Request) -> dict[str, Any]:
        """Explain the translation of a sentence: pieces, probabilities, attention, the beam's tree, every step."""
        return await answered(request, "/explain", ExplainRequest, server.explain)  # type: ignore[no-any-return]

    @app.get("/languages")
    async def languages() -> list[Language]:
        """Return the languages, and which can be translated into which."""
        sources = dict.fromkeys(source for source, _ in server.batchers)
        return [
            Language(code=code, name=NAMES.get(code, code), targets=[b for a, b in server.batchers if a == code])
            for code in sources
        ]

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
    app.add_middleware(_Headers)
    return app


class _Headers:
    """Security headers on every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

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
    list(translator.translate(["a " * 20] * batch, batch=batch))


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


def _body(kind: type[BaseModel]) -> dict[str, Any]:
    schema = kind.model_json_schema()
    content = {"application/json": {"schema": schema, "example": schema["examples"][0]}}
    if kind is TranslateRequest:
        content["application/x-www-form-urlencoded"] = {"schema": schema}
    return {"requestBody": {"required": True, "content": content}}


async def _read(request: Request, kind: type[Body], limits: ServeConfig) -> Body:
    """Read JSON or a form, no more of it than there may be."""
    most = 8 * limits.characters + 65_536  # a character is at most 6 bytes of JSON's, 12 of a form's; plus lists
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > most:
                raise Refused(413, f"more than {most:,} bytes; send at most {limits.characters:,} characters at a time")
    except ClientDisconnect:
        raise Refused(499, "the client went away") from None
    try:
        if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            form = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
            table: Any = {key: values if key == "q" and len(values) > 1 else values[0] for key, values in form.items()}
        else:
            table = json.loads(body)
        return kind.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the request"
        raise Refused(422, f"{where}: {first['msg']}") from None
    except (ValueError, RecursionError):
        raise Refused(422, 'the body is not JSON; send {"q": "text", "source": "en", "target": "de"}') from None


async def _unless_gone(request: Request, work: Awaitable[T], seconds: float) -> T:
    """Do the work, unless its client goes away first, or it takes too long."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        done, _ = await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            return task.result()
        if done:
            raise Refused(499, "the client went away")
        raise Refused(503, f"not done after {seconds:g} seconds; send less text, or try again", retry_after=5)
    except TooManyError as full:
        raise Refused(429 if full.of_client else 503, str(full), retry_after=1) from None
    except HeedfulError as error:
        raise Refused(400, str(error)) from None
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
