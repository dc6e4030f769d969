"""heedful: the Transformer of "Attention Is All You Need", trained on your own pairs of text."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heedful.decoding.settings import SearchConfig
    from heedful.errors import HeedfulError
    from heedful.pipeline import resume, run
    from heedful.recipe import Recipe, build
    from heedful.translator import Output, Translator

__all__ = ["HeedfulError", "Output", "Recipe", "SearchConfig", "Translator", "__version__", "build", "resume", "run"]

__version__: str

_HOMES = {
    "HeedfulError": "errors",
    "Output": "translator",
    "Recipe": "recipe",
    "SearchConfig": "decoding.settings",
    "Translator": "translator",
    "build": "recipe",
    "resume": "pipeline",
    "run": "pipeline",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import heedful` alone does not import torch."""
    from importlib import import_module

    if name == "__version__":
        from importlib.metadata import version

        return version("heedful")
    if name not in _HOMES:
        raise AttributeError(f"module 'heedful' has no attribute {name!r}")
    return getattr(import_module(f"heedful.{_HOMES[name]}"), name)
