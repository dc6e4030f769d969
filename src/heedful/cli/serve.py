"""`heedful serve`."""

import gc
import socket
import threading
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.markup import escape

from heedful.bundle import locate
from heedful.cli.model import load, say_if_slow
from heedful.cli.settings import Bundle, Device, Threads, Weights, flags, given
from heedful.cli.terminal import terminal
from heedful.config import from_table
from heedful.errors import HeedfulError
from heedful.serve.limits import ServeConfig, new_key

ServeFlags: Any = flags(ServeConfig)


def serve(
    *bundles: Bundle,
    new_key_: Annotated[
        Path | None, Parameter(name="--new-key", help="Make an API key, add its hash to this file, print it, and end")
    ] = None,
    open_: Annotated[bool, Parameter(name="--open", help="Open the page in a browser", negative=())] = False,
    device: Device = "cpu",
    threads: Threads = 0,
    weights: Weights = "float32",
    settings: Annotated[ServeFlags | None, Parameter(name="*")] = None,
) -> None:
    """Serve models over HTTP, as LibreTranslate does, with a page to translate on and to look inside.

    Several models may be given, one for each pair of languages; without any, those in the box are served.
    """
    if new_key_:
        print(new_key(new_key_))
        return
    try:
        import uvicorn

        from heedful.serve.app import make_app
    except ModuleNotFoundError as error:
        raise HeedfulError(f"serve needs {error.name}: pip install 'heedful[serve]'") from None
    config = from_table(ServeConfig, given(settings), "serve")
    chosen = bundles or (locate("en-de"), locate("de-en"))
    translators = [load(bundle, device, threads, weights) for bundle in chosen]
    for translator in translators:
        # made now: what it cannot have, or compute with, is refused before the address is said, and nobody waits for it
        translator.inference, translator.model  # noqa: B018
        list(translator.translate(["a"]))
    for translator in translators:
        say_if_slow(translator)
    app = make_app(translators, config)
    pairs = ", ".join(f"{source} to {target}" for source, target in app.state.server.batchers)
    listening = _listen(config)
    address = f"http://{_address(config.host, listening.getsockname()[1])}"
    said = f"[bold]{escape(address)}[/]  {pairs}  [dim]Ctrl-C ends[/]"
    terminal(stderr=True).print(said, soft_wrap=True)
    if open_:
        # it waits for the answer until the server listens to it; and some wait for the browser's end
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    patience = int(config.seconds) + 1  # on SIGTERM, what is running is finished first
    settled = uvicorn.Config(
        app,
        log_level="warning",
        timeout_graceful_shutdown=patience,
        server_header=False,
        forwarded_allow_ips=["127.0.0.1", "::1", *config.proxies],
    )
    gc.collect()
    gc.freeze()  # torch and the models stay: looked through again and again, they took a tenth of the throughput
    with listening, suppress(KeyboardInterrupt):  # Ctrl-C is how it is to end
        uvicorn.Server(settled).run([listening])


def _listen(config: ServeConfig) -> socket.socket:
    """Take the port before anything is said about it.

    Raises:
        HeedfulError: somebody else has it, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server((config.host, config.port), family=family, backlog=2048)
    except OSError as error:
        reason = error.strerror or error
        raise HeedfulError(f"{_address(config.host, config.port)}: {reason}; choose another --port or --host") from None


def _address(host: str, port: int) -> str:
    """Return host and port as they stand in a URL.

    >>> _address("127.0.0.1", 8000), _address("::1", 8000)
    ('127.0.0.1:8000', '[::1]:8000')
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
