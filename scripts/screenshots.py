"""Take the pictures in docs/images/ of the demo page, on the data that `make demo` left.

It likes a few posts, as a visitor would: that is in the demo's database afterwards.
"""

import io
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SERVE = [sys.executable, "-m", "reco_assets", "serve"]


@contextmanager
def service() -> Iterator[str]:
    """`reco serve` on a free port, until its real-time recommendations are there."""
    environment = {**os.environ, "RECO_SERVICE_PORT": "0", "RECO_LOG_LEVEL": "error"}
    process = subprocess.Popen(SERVE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout
        url = next(found[1] for line in process.stdout if (found := re.match(r"Listening on (\S+)", line)))
        while True:
            try:
                urllib.request.urlopen(f"{url}/api/health/ready").close()
                break
            except OSError:  # not listening, or not ready
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


def visit(browser: Browser, url: str, user: int, width: int, height: int, **kinds: Any) -> Page:
    """The demo, as one user of its list, by number: what one picture's did is not seen in another."""
    page = browser.new_page(viewport={"width": width, "height": height}, reduced_motion="reduce", **kinds)
    page.goto(f"{url}/demo")
    page.wait_for_selector(".post")
    page.select_option("#user", index=user)
    page.wait_for_url("**user=*")
    page.wait_for_selector(".post")
    page.wait_for_timeout(500)
    return page


def take(page: Page, name: str) -> None:
    """Save what is on the screen."""
    path = IMAGES / name
    image = Image.open(io.BytesIO(page.screenshot()))
    image.quantize(96).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1024} KB")


def main() -> None:
    """Take all of them."""
    IMAGES.mkdir(exist_ok=True)
    with service() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)

        page = visit(browser, url, 1, 390, 760)
        take(page, "demo-phone.png")

        page = visit(browser, url, 2, 1000, 760, color_scheme="dark")
        page.click(".ask >> nth=0")
        take(page, "demo-why.png")

        page = visit(browser, url, 3, 1000, 760)
        for n in range(4):
            page.click(f".like >> nth={n}")
        page.wait_for_selector(".toast div")
        page.locator(".fold").evaluate("fold => scrollBy(0, fold.getBoundingClientRect().top - 330)")
        page.mouse.move(0, 0)
        take(page, "demo.png")
        browser.close()


if __name__ == "__main__":
    main()
