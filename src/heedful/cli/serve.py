"""`heedful serve`."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from heedful.cli.settings import Bundle, Device, Threads, Weights, flags, given
from heedful.cli.translate import load
from heedful.config import from_table
from heedful.errors import HeedfulError
from heedful.serve.limits import ServeConfig, new_key

ServeFlags: Any = flags(ServeConfig)


def serve(
    *bundles: Bundle,
    new_key_: Annotated[
        Path | None, Parameter(name="--new-key", help="Make an API key, add its hash to this file, print it, and end")
    ] = None,
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
    except ImportError as error:
        raise HeedfulError(f"serve needs {error.name}: pip install 'heedful[serve]'") from None
    config = from_table(ServeConfig, given(settings), "serve")
    from heedful.bundle import locate

    chosen = bundles or (locate("en-de"), locate("de-en"))
    app = make_app([load(bundle, device, threads, weights) for bundle in chosen], config)
    pairs = ", ".join(f"{source} to {target}" for source, target in app.state.server.batchers)
    address = f"http://{config.host}:{config.port}"
    Console(stderr=True, highlight=False).print(f"[bold]{address}[/]  {pairs}  [dim]Ctrl-C ends[/]", soft_wrap=True)
    patience = int(config.seconds) + 1  # on SIGTERM, what is running is finished first
    uvicorn.run(
        app,
        host=config.host,
        port=config.port,
        log_level="warning",
        timeout_graceful_shutdown=patience,
        server_header=False,
    )
