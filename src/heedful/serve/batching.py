"""Sentences that wait together are translated together, in turns between clients.

One thread computes for each model. While it does, sentences gather; when it is free, it takes one of each client in
turn until the batch is full. A sentence whose client has left is dropped. A translation does not depend on what else is
in its batch (a law of search), so it is the one that the sentence would have had alone.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from heedful.decoding.settings import SearchConfig
from heedful.serve.limits import ServeConfig
from heedful.text.document import Sentence, careful
from heedful.translator import Output, Translator

T = TypeVar("T")


class TooManyError(Exception):
    """No room: the queue is full, or this client's share of it."""

    def __init__(self, reason: str, of_client: bool) -> None:
        super().__init__(reason)
        self.of_client = of_client


@dataclass(eq=False)
class Job:
    """A sentence that waits, the search that it wants, and whether words are to be aligned."""

    text: str
    search: SearchConfig
    align: bool
    answer: "asyncio.Future[list[Output]]" = field(repr=False)


class Batcher:
    """The queue of one model."""

    def __init__(
        self,
        translator: Translator,
        config: ServeConfig,
        watch: Callable[[int], None] = lambda batch: None,
    ) -> None:
        self.translator, self.config, self._watch = translator, config, watch
        self._waiting: OrderedDict[str, deque[Job]] = OrderedDict()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1)
        self._aside = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to translate what waits."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End, and leave what still waits unanswered."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown(wait=True, cancel_futures=True)

    @property
    def waiting(self) -> int:
        """How many sentences wait."""
        return sum(map(len, self._waiting.values()))

    async def translate(
        self, client: str, sentences: Sequence[Sentence], n_best: int = 1, *, admitted: bool = False
    ) -> list[list[Output]]:
        """Return the `n_best` translations of each sentence; cancelled, its sentences leave the queue.

        What is asked for again on behalf of a text that is already being translated is `admitted` in any case.

        Raises:
            TooManyError: the queue is full.
        """
        own = len(self._waiting.get(client, ()))
        if not admitted and own + len(sentences) > self.config.share:
            raise TooManyError(f"{own} of your sentences wait already; send fewer at a time", of_client=True)
        # what one client has beyond its share, as texts with many placeholders are asked for again, is its own affair
        waiting = sum(min(len(own), self.config.share) for own in self._waiting.values())
        if not admitted and waiting + len(sentences) > self.config.queue:
            raise TooManyError("too many sentences wait; try again soon", of_client=False)
        loop = asyncio.get_running_loop()
        jobs = [Job(one.text, self._search(one, n_best), one.align, loop.create_future()) for one in sentences]
        self._waiting.setdefault(client, deque()).extend(jobs)
        self._arrived.set()
        try:
            return await asyncio.gather(*(job.answer for job in jobs))
        finally:
            for job in jobs:
                job.answer.cancel()
            self._forget(client)

    async def call(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run something else on the model's thread, one thing at a time: a batch waits for one of them at most."""
        async with self._aside:
            loop, ended = asyncio.get_running_loop(), asyncio.Event()
            future = self._thread.submit(work, *arguments)
            try:
                return await asyncio.wrap_future(future)  # who leaves takes it back, if it has not begun
            finally:
                if not future.done():  # it runs, for nobody: the thread is not free yet
                    future.add_done_callback(lambda _: loop.call_soon_threadsafe(ended.set))
                    await ended.wait()

    async def _compute(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _search(self, sentence: Sentence, n_best: int) -> SearchConfig:
        search = self.translator.search
        beam = max(search.beam, n_best)
        search = replace(search, n_best=n_best, beam=beam, sample=False)  # a draw would depend on its batch
        return replace(search, no_repeat_ngram=careful(search.no_repeat_ngram)) if sentence.careful else search

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            if self.waiting < self.config.batch:
                await asyncio.sleep(self.config.wait / 1000)
            jobs = self._take()
            if not self._waiting:
                self._arrived.clear()
            if jobs:
                self._watch(len(jobs))
                await self._answer(jobs)

    def _forget(self, client: str) -> None:
        """Take out of a client's sentences those that nobody waits for any more."""
        own = self._waiting.get(client, ())
        if wanted := deque(job for job in own if not job.answer.done()):
            self._waiting[client] = wanted
        else:
            self._waiting.pop(client, None)

    def _take(self) -> list[Job]:
        """Take one sentence of each client in turn; the client that was served goes to the end of the row."""
        jobs: list[Job] = []
        while self._waiting and len(jobs) < self.config.batch:
            client, own = self._waiting.popitem(last=False)
            while own and own[0].answer.done():  # its client has left
                own.popleft()
            if own:
                jobs.append(own.popleft())
            if own:
                self._waiting[client] = own
        return jobs

    async def _answer(self, jobs: list[Job]) -> None:
        try:
            wanted = [(job.text, job.search, job.align) for job in jobs]
            outputs = await self._compute(partial(self.translator.translate_each, wanted, batch=self.config.batch))
        except Exception as error:  # whatever it was, those who wait must hear of it
            if len(jobs) > 1:  # but those whose fault it is not have their answers
                for job in jobs:
                    await self._answer([job])
            elif not jobs[0].answer.done():
                jobs[0].answer.set_exception(error)
            return
        for job, found in zip(jobs, outputs, strict=True):
            if not job.answer.done():
                job.answer.set_result(found)
