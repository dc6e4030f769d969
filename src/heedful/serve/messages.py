"""What goes over the wire: requests, answers and errors; and reading a request."""

import asyncio
import json
import re
from collections.abc import Awaitable
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qs

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect

from heedful.errors import HeedfulError
from heedful.serve.batching import TooManyError
from heedful.serve.limits import ServeConfig
from heedful.text.document import clean

FORMS = "application/x-www-form-urlencoded", "multipart/form-data"  # as curl -d and -F send them, and browsers
BOUNDARY = re.compile(r"""boundary=(?:"([^"]{1,70})"|([^";,\s]{1,70}))""", re.I)  # as long as RFC 2046 lets it be
NAME = re.compile(rb"""^content-disposition:[^\r\n]*?[;\s]name=(?:"([^"\r\n]*)"|([^";\s]+))""", re.I | re.M)
HEAD = 1000  # bytes of a part's header that are looked at
ARRIVAL = 30.0  # seconds in which a request must be here
T = TypeVar("T")
Body = TypeVar("Body", bound=BaseModel)


class TranslateRequest(BaseModel):
    """What LibreTranslate's clients send."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"q": "Where is the station?", "source": "en", "target": "de"}]}
    )
    q: str | list[str] = Field(description="A text, or a list of texts")
    source: str = Field(
        description="Code of its language; auto, which detects none, where only one model writes the target"
    )
    target: str = Field(description="Code of the language to write")
    format: Literal["text", "html"] = Field("text", description="html: tags are kept")
    alternatives: int = Field(0, ge=0, description="How many other translations to return")
    scores: bool = Field(
        False, description="Return the lowest score of each text's sentences: who is to look at it again"
    )
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


class Detected(BaseModel):
    """What `auto` was taken for, without looking: only one model writes the target."""

    language: str
    confidence: float = 0.0


class Translated(BaseModel):
    """Translations: a text for a text, a list for a list.

    A score is that of the search, a log-probability over a power of the length; a text without a sentence has none, and
    null in a list.
    """

    translatedText: str | list[str]
    alternatives: list[str] | list[list[str]] | None = None
    scores: float | list[float | None] | None = None
    detectedLanguage: Detected | None = None


class Language(BaseModel):
    """A language, and those that it can be translated into: none, if it can only be written."""

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

    def answer(self) -> JSONResponse:
        """Return the error as it is sent."""
        headers = {"retry-after": str(self.retry_after)} if self.retry_after else {}
        if self.status in (408, 413):  # the rest of the request is not waited for
            headers["connection"] = "close"
        return JSONResponse({"error": self.error}, self.status, headers)


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
    for status, description in {
        400: "A language, sentence, layer or head that there is not",
        403: "The API key is missing or unknown",
        408: "The request did not arrive in time",
        413: "Too much text",
        422: "Not a valid request",
        429: "Too many sentences or explanations of this client wait",
        500: "The server failed",
        503: "Too busy, or it took too long",
    }.items()
}


def body_of(kind: type[BaseModel]) -> dict[str, Any]:
    """Return what the OpenAPI document says of a request's body."""
    schema = kind.model_json_schema()
    content = {"application/json": {"schema": schema, "example": schema["examples"][0]}}
    if kind is TranslateRequest:
        content |= {form: {"schema": schema} for form in FORMS}
    return {"requestBody": {"required": True, "content": content}}


async def read(request: Request, kind: type[Body], limits: ServeConfig) -> Body:
    """Read JSON or a form, no more of it than there may be."""
    most = 12 * limits.characters + 65_536  # a character is at most 12 bytes of JSON's or a form's; plus lists
    body = bytearray()
    try:
        async with asyncio.timeout(ARRIVAL):
            async for piece in request.stream():
                body += piece
                if len(body) > most:
                    few = f"send at most {limits.characters:,} characters at a time"
                    raise Refused(413, f"more than {most:,} bytes; {few}")
    except TimeoutError:
        raise Refused(408, f"not all of the request had arrived after {ARRIVAL:g} seconds; send it at once") from None
    except ClientDisconnect:
        raise Refused(499, "the client went away") from None
    try:
        kind_of_body = request.headers.get("content-type", "")
        if kind_of_body.lower().startswith(FORMS):
            form = _form(kind_of_body, bytes(body))
            table: Any = {key: values if key == "q" and len(values) > 1 else values[0] for key, values in form.items()}
        else:
            table = json.loads(body)
        if isinstance(table, dict):  # LibreTranslate's clients send null for what they have not
            table = {key: value for key, value in table.items() if value is not None}
        return kind.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the request"
        raise Refused(422, f"{where}: {first['msg']}") from None
    except (ValueError, RecursionError):
        raise Refused(422, 'the body is not JSON; send {"q": "text", "source": "en", "target": "de"}') from None


def _form(kind_of_body: str, body: bytes) -> dict[str, list[str]]:
    """Return the values of a form, of either kind, by their names."""
    if kind_of_body.lower().startswith(FORMS[0]):
        return parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    form: dict[str, list[str]] = {}
    if boundary := BOUNDARY.search(kind_of_body):
        # RFC 7578, by hand: the standard library's reading of headers takes time in proportion to their square
        between = f"\r\n--{boundary[1] or boundary[2]}".encode()
        for part in (b"\r\n" + body).split(between)[1:]:
            head, _, value = part.partition(b"\r\n\r\n")
            if found := NAME.search(head[:HEAD]):
                name = found[1] if found[1] is not None else found[2]
                form.setdefault(name.decode("utf-8", "replace"), []).append(value.decode("utf-8", "replace"))
    return form


async def unless_gone(request: Request, work: Awaitable[T], seconds: float) -> T:
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
