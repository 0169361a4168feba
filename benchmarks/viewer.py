"""What the viewer costs a training, how soon it shows something, how many pictures it draws a second.

    python benchmarks/viewer.py [--out FILE.json] [--data FOLDER] [--seconds 2] [--rounds 12]

A page (tests/helpers/page.py: viser's protocol without a picture, in a process of its own) connects to a
training and leaves again, in turn; steps per second without it, with it at rest and with its camera moving are
counted in alternating phases of one run, so that the ratios count; on a machine with other work they are noisy. What
is charged to the viewer is what its budget counts, as a share of the time. The page's own processor time
is in the JSON: it is part of what is lost here, and none of the viewer's. The scenes are fox (`--data`, held at its
12,110 Gaussians, 270x480 photographs) and a synthetic one of 100,000 Gaussians for the pictures.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from splat.core import Gaussians
from splat.link import Commands, Session
from splat.strategies import registry
from splat.training.config import load_preset
from splat.training.run import train
from splat.viewer.app import Viewer
from splat.viewer.serving import Address

ROOT = Path(__file__).resolve().parent.parent
CANVAS = (480, 270)

# The page's process: connect PORT, rest, move SECONDS, leave, yield; a line of JSON answers each.
PAGE = """
import json, math, os, sys, time
from page import Page
page = None
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    word, *rest = line.split()
    began = time.monotonic()
    if word == "connect":
        page = Page(int(rest[0]), (int(rest[1]), int(rest[2])))
        page.wait(lambda: page.images)
        answer = {"first": time.monotonic() - began}
    elif word == "move":
        px, py, pz = page.camera["position"]
        tx, ty, tz = page.camera["look_at"]
        before, seconds = page.images, float(rest[0])
        while time.monotonic() - began < seconds:
            turn = 0.5 * math.sin(time.monotonic() - began)
            dx, dz = px - tx, pz - tz
            c, s = math.cos(turn), math.sin(turn)
            page.move(position=(tx + c * dx + s * dz, py, tz - s * dx + c * dz))
            time.sleep(1 / 60)
        page.move(position=(px, py, pz))
        answer = {"rate": (page.images - before) / seconds, "size": page.image.shape[1::-1]}
    elif word == "yield":  # what the browser takes is not the viewer's: often it is another machine
        os.nice(15)
        answer = None
    elif word == "rest":
        before = page.images
        time.sleep(float(rest[0]))
        answer = {"rate": (page.images - before) / float(rest[0]), "size": page.image.shape[1::-1]}
    else:
        page.close()
        answer = None
    print(json.dumps(answer), flush=True)
"""


class Visitor:
    """The page in its process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PAGE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT / "tests/helpers",
        )
        self._answer()

    @property
    def processor(self) -> float:
        """Seconds that it has run; its threads are none of the viewer's. 0 elsewhere than on Linux."""
        path = Path(f"/proc/{self.process.pid}/stat")
        fields = path.read_text().rpartition(")")[2].split() if path.exists() else ["0"] * 13
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def ask(self, *words: object) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the page's process has ended")
        return json.loads(line)


def synthetic(count: int) -> Gaussians:
    """Small Gaussians in a ball, SH degree 3."""
    g = torch.Generator().manual_seed(0)
    return Gaussians(
        torch.randn(count, 3, generator=g),
        torch.randn(count, 4, generator=g),
        -4.0 + 0.5 * torch.randn(count, 3, generator=g),
        torch.randn(count, generator=g),
        0.3 * torch.randn(count, 16, 3, generator=g),
    )


def pictures(visitor: Visitor, seconds: float) -> dict[str, Any]:
    """A finished scene of 100,000 Gaussians: time to the first picture, pictures a second in motion."""
    viewer = Viewer([Session.finished("synthetic", synthetic(100_000))], Address(port=8400))
    try:
        first = visitor.ask("connect", viewer.port, *CANVAS)["first"]
        moving = visitor.ask("move", seconds)
        full = at_full_size(viewer)
        visitor.ask("leave")
    finally:
        viewer.stop()
    return {
        "first_image_seconds": first,
        "moving_rate": moving["rate"],
        "moving_size": moving["size"],
        "full_processor_seconds": full,
    }


def at_full_size(viewer: Viewer) -> float:
    """Processor time, all threads, of one picture of the whole canvas, compressed; the median of twenty."""
    client = next(iter(viewer.clients.values()))
    taken = []
    for _ in range(20):
        before = time.process_time()
        image = client.painter.picture(client.pose, CANVAS)
        Image.fromarray(image.numpy()).save(io.BytesIO(), "jpeg", quality=75)
        taken.append(time.process_time() - before)
    return statistics.median(taken)


def beside_training(
    visitor: Visitor, data: Path, seconds: float, rounds: int, share: float
) -> dict[str, Any]:
    """Steps per second of fox alone, with a page at rest, with a page in motion; in turn, in one run."""
    phases: dict[str, list[float]] = {"alone": [], "rest": [], "move": []}
    used: dict[str, list[float]] = {"rest": [], "move": []}
    pages: dict[str, list[float]] = {"rest": [], "move": []}
    answers: dict[str, list[Any]] = {"rest": [], "move": []}
    commands = Commands()
    stopping: list[BaseException] = []

    def observe(session: Session) -> None:
        viewer = Viewer([session], Address(port=8400), share)

        def count(name: str, ask: Any) -> None:
            before, began = session.progress().step, time.monotonic()  # type: ignore[misc]
            spent, page = viewer.budget.spent, visitor.processor
            answer = ask()
            taken, passed = session.progress().step - before, time.monotonic() - began  # type: ignore[misc]
            phases[name].append(taken / passed)
            if name in answers:
                used[name].append((viewer.budget.spent - spent) / passed)
                pages[name].append((visitor.processor - page) / passed)
                answers[name].append(answer)

        def go() -> None:
            try:
                time.sleep(3)
                count("alone", lambda: time.sleep(seconds))
                for _ in range(rounds):
                    for kind in ("rest", "move"):
                        visitor.ask("connect", viewer.port, *CANVAS)
                        visitor.ask(kind, 1)
                        count(kind, lambda kind=kind: visitor.ask(kind, seconds))
                        visitor.ask("leave")
                        time.sleep(0.5)
                        count("alone", lambda: time.sleep(seconds))
            except BaseException as error:
                stopping.append(error)
            finally:
                viewer.stop()
                commands.send(lambda trainer: trainer.stop())

        threading.Thread(target=go, daemon=True).start()

    # No growth, and all harmonics from the start: a step late in the run costs what an early one does.
    fixed = {"max_gaussians": 12_110, "sh_interval": 1, "downscale": 4.0, "steps": 1_000_000, "device": "cpu"}
    config = dataclasses.replace(load_preset("cpu"), **fixed)
    with tempfile.TemporaryDirectory() as folder:
        train(
            config,
            data,
            Path(folder) / "run",
            strategies=registry.build(config.strategies, config.options),
            commands=commands,
            ready=observe,
            quiet=True,
        )
    if stopping:
        raise stopping[0]
    # Each phase against the mean of the two phases alone around it.
    around = [(a + b) / 2 for a, b in itertools.pairwise(phases["alone"])]
    out: dict[str, Any] = {
        "share": share,
        "steps_per_second": phases,
        "charged": used,
        "page_processor": pages,
    }
    for i, name in enumerate(("rest", "move")):
        lost = [
            1 - with_page / without for with_page, without in zip(phases[name], around[i::2], strict=True)
        ]
        out[f"lost_{name}"] = statistics.median(lost)
        out[f"lost_{name}_each"] = lost
        out[f"charged_{name}"] = statistics.mean(used[name])
        out[f"pictures_{name}"] = statistics.median(answer["rate"] for answer in answers[name])
        out[f"size_{name}"] = answers[name][-1]["size"]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--share", type=float, default=0.1)
    args = parser.parse_args()
    visitor = Visitor()
    result = {"pictures": pictures(visitor, args.seconds)}
    visitor.ask("yield")
    result["training"] = beside_training(visitor, args.data / "fox", args.seconds, args.rounds, args.share)
    visitor.close()
    shown, beside = result["pictures"], result["training"]
    print(f"{'100,000 Gaussians: first picture after':<52}{shown['first_image_seconds']:8.2f} s")
    full = shown["full_processor_seconds"]
    print(f"{'a picture of 480x270, processor time':<52}{1000 * full:8.1f} ms")
    print(f"{'pictures a second in motion, nothing trains':<52}{shown['moving_rate']:8.1f}")
    print(f"{'pictures a second in motion, beside a training':<52}{beside['pictures_move']:8.1f}")
    print(f"{'pictures a second at rest, beside a training':<52}{beside['pictures_rest']:8.1f}")
    print(f"{'time charged to the viewer, page at rest':<52}{100 * beside['charged_rest']:8.1f} %")
    print(f"{'time charged to the viewer, page in motion':<52}{100 * beside['charged_move']:8.1f} %")
    print(f"{'training slower, page at rest':<52}{100 * beside['lost_rest']:8.1f} %")
    print(f"{'training slower, page in motion':<52}{100 * beside['lost_move']:8.1f} %")
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
