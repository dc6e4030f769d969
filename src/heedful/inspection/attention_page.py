"""One translation's explanation as a web page: one file, no network, light and dark."""

import json
from html import escape
from pathlib import Path

from heedful.decoding.explanation import Explanation

PAGE = Path(__file__).with_name("page")


def attention_page(explanation: Explanation) -> str:
    """Return the page. The text in it, the model's too, is data: it can neither end the script nor become markup."""
    style, views = ((PAGE / name).read_text(encoding="utf-8") for name in ("style.css", "views.js"))
    data = json.dumps(explanation.to_table(), ensure_ascii=False).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(explanation.source)} · heedful</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
<h1>What the model attended to</h1>
<main></main>
<script type="module">
{views}
show(document.querySelector("main"), {data});
</script>
</html>
"""
