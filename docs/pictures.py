"""Take the pictures of the README: every view of `heedful serve`, in headless Chromium, with the models in the box.

    python docs/pictures.py [FOLDER]

Needs the extras serve and dev, and a Chromium.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).with_name("pictures")
TEXT = "The little dog sleeps on the old sofa. Where is the train station?"
VIEWS = ("Alternatives", "Attention", "Step by step", "Beam", "Positions")
LOOKS: dict[str, tuple[int, int, Literal["light", "dark"]]] = {
    "": (1200, 860, "light"),
    "-narrow-dark": (390, 800, "dark"),
}


def visit(page: Page, address: str, look: str, folder: Path) -> None:
    """Type the text, open one view after another, and keep a picture of each."""
    page.goto(address)
    page.locator(".target .word").first.wait_for()
    with page.expect_response("**/explain"):
        page.locator("#text").fill(TEXT)
    page.get_by_role("button", name="Where is").wait_for()  # the second sentence has a button now
    for name in VIEWS:
        page.get_by_role("tab", name=name).click()
        page.screenshot(path=folder / f"{name.lower().replace(' ', '-')}{look}.png")


def main(folder: Path) -> None:
    """Serve the models in the box, and look at the page at two widths, in both colour schemes."""
    folder.mkdir(exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    command = [sys.executable, "-m", "heedful", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        assert server.stderr
        address = next(word for line in server.stderr for word in line.split() if word.startswith("http"))
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        for look, (width, height, scheme) in LOOKS.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            visit(page, address, look, folder)
        browser.close()
        server.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else FOLDER)
