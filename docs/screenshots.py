"""Makes the pictures of docs/viewer.md and README.md: a real run in a real browser.

    python docs/screenshots.py [--data DATA] [--out docs/images] [--steps 3000]

Trains on DATA, by default the sample scene, with the viewer on, and visits it with Chromium (found on the path,
or named in SPLAT_CHROMIUM) driven by Playwright. Takes some minutes on two cores.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-quic", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
DESK = {"width": 1280, "height": 720}
PHONE = {"width": 390, "height": 780}
QUALITY = 80


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--steps", type=int, default=3000)
    args = parser.parse_args()
    program = os.environ.get("SPLAT_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        raise SystemExit("screenshots: no Chromium: apt-get install chromium, or name one in SPLAT_CHROMIUM")
    from playwright.sync_api import sync_playwright

    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        data = args.data or sample(Path(folder) / "toys")
        run, page = Path(folder) / "run", Path(folder) / "toys.html"
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        flags = ["--preset", "cpu", "--eval", "--steps", str(args.steps), "--out", str(run)]
        with training(["train", str(data), *flags, "--viewer", "--keep-viewer"]) as url:
            visit(browser, url, args.out, args.steps)
        subprocess.run([sys.executable, "-m", "splat", "export", str(run), str(page)], check=True)
        exported(browser, page, args.out)
        browser.close()


def sample(folder: Path) -> Path:
    from splat.data.sample import write_sample

    return write_sample(folder, width=400, height=300, truth=False)


@contextmanager
def training(words: list[str]) -> Iterator[str]:
    """A run in a process of its own; yields its viewer's address."""
    command = [sys.executable, "-u", "-m", "splat", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="")
            found = re.match(r"viewer: (http\S+)", line)
            if found:
                yield found[1]
                return
        raise SystemExit("screenshots: the run ended before it had a viewer")
    finally:
        process.terminate()
        process.wait()


def visit(browser: Any, url: str, out: Path, steps: int) -> None:
    """The run while it trains, what can be looked at once it is done, and the page on a phone."""
    page = browser.new_page(viewport=DESK)
    page.set_default_timeout(600_000)
    page.goto(url)
    page.get_by_text("Software WebGL").wait_for()  # of this browser, and of no interest
    page.locator(".mantine-Notification-closeButton").first.click()
    tab(page, "Train")
    wait(lambda: step(page) > 2 * steps // 3)
    save(page, out / "viewer-training.jpg")
    page.get_by_text(re.compile("^finished step")).wait_for()

    tab(page, "Cameras")
    page.get_by_role("button", name="Next").click()
    choose(page, "Compare", "wipe")
    page.wait_for_timeout(4000)
    save(page, out / "viewer-compare.jpg")
    choose(page, "Compare", "off")
    page.mouse.move(450, 400)
    for _ in range(8):
        page.mouse.wheel(0, 240)
        page.wait_for_timeout(100)
    page.mouse.down()
    page.mouse.move(380, 520, steps=8)
    page.mouse.up()
    page.wait_for_timeout(5000)
    save(page, out / "viewer-cameras.jpg")

    tab(page, "View")
    page.get_by_role("button", name="Back to the start").click()
    tab(page, "Compress")
    page.get_by_role("button", name="Preview").click()
    page.get_by_role("button", name="Leave them out of the scene").wait_for()
    page.wait_for_timeout(3000)
    save(page, out / "viewer-compress.jpg")
    page.close()

    phone = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True).new_page()
    phone.goto(url)
    phone.get_by_text("Software WebGL").wait_for()
    phone.locator(".mantine-Notification-closeButton").first.click()
    phone.wait_for_timeout(5000)
    save(phone, out / "viewer-phone.jpg")
    phone.close()


def exported(browser: Any, path: Path, out: Path) -> None:
    """The exported page, opened from disk."""
    page = browser.new_page(viewport=DESK)
    page.goto(path.as_uri())
    page.evaluate("() => splatPage.loaded")
    page.wait_for_timeout(3000)
    save(page, out / "page.jpg")
    page.close()


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def choose(page: Any, label: str, option: str) -> None:
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()


def step(page: Any) -> int:
    """The step that the page shows."""
    found = re.search(r"step ([\d,]+) of", page.inner_text("body"))
    return int(found[1].replace(",", "")) if found else 0


def wait(condition: Callable[[], bool], seconds: float = 900.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("screenshots: waited in vain")
        time.sleep(0.5)


def save(page: Any, path: Path) -> None:
    from PIL import Image

    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.save(path, quality=QUALITY, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
