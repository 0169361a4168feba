"""A real browser: Debian's Chromium without a window, drawing WebGL on the CPU, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A running browser (playwright.sync_api.Browser); skips, with the reason, where there is none."""
    program = os.environ.get("SPLAT_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium, or name one in SPLAT_CHROMIUM")
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is missing: pip install playwright"
    )
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """open_page(url, width, height) -> page. What the page logs as an error, or throws, fails the test.

    `before` is a script that runs before the page's own; other options are those of a browser context.
    """
    contexts, errors = [], []

    def hear(line: Any) -> None:
        # Of viser's own splats, whatever they are: three.js takes the quad that it draws them with, which is flat
        # ([4, 2]), for points in space. The picture is right.
        flat = "computeBoundingSphere(): Computed radius is NaN" in line.text
        if line.type == "error" and not flat:
            errors.append(line.text)

    def open_one(url: str, width: int = 960, height: int = 540, before: str = "", **options: Any) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.add_init_script(before)
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.on("pageerror", lambda error: errors.append(f"thrown: {error}"))
        page.on("console", hear)
        page.goto(url)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not errors, errors


@pytest.fixture
def screenshots(request: pytest.FixtureRequest) -> Path:
    """Where pictures of a test are kept to be looked at: local/screenshots/ (not in the repository)."""
    folder = ROOT / "local" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
