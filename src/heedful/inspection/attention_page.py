"""One translation's explanation as a web page: one file, no network, light and dark."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from heedful.decoding.explanation import Explanation
from heedful.errors import HeedfulError

PAGE = Path(__file__).with_name("page")
LONGEST = 256  # tokens on either side, as in `serve`: maps grow with their square


def attention_page(explanation: Explanation, without: Sequence[str] = ()) -> str:
    """Return the page; `without` are the heads that were switched off for it.

    The text in it, the model's too, is data: it can neither end the script nor become markup.

    Raises:
        HeedfulError: it would be too large to be looked at.
    """
    longest = max(len(explanation.source_pieces), len(explanation.target_pieces))
    if longest > LONGEST:
        raise HeedfulError(f"{longest:,} tokens; a page shows at most {LONGEST}: give a shorter text, or write --npz")
    style, views = ((PAGE / name).read_text(encoding="utf-8") for name in ("style.css", "views.js"))
    table = {**explanation.to_table(), "without": list(without)}
    data = json.dumps(table, ensure_ascii=False).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(explanation.source)} · heedful</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
<h1>What the model attended to</h1>
<main><noscript>This page draws itself by a script in it; a browser that runs scripts shows it.</noscript></main>
<script type="module">
{views}
show(document.querySelector("main"), {data});
</script>
</html>
"""
