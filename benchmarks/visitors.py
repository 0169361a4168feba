"""What visitors who come and go, send garbage or stop listening cost a training.

    python benchmarks/visitors.py [--out FILE.json] [--seconds 20] [--rounds 3] [--visits 200]

One run on the sample scene with the viewer on. Phases alternate with phases without anybody, so that the ratios
count: steps per second of the run's own processor time (Linux: from /proc), which other work on the machine and
the visitors' own process hardly touch. Memory is that of the run, in rounds: it should stop growing after the first.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("come_and_go", "garbage", "stalled")

# The visitors' process: KIND PORT SECONDS VISITS on a line; JSON answers when it is done.
VISITORS = """
import contextlib, json, random, sys, time
from importlib import metadata
import msgspec
from page import Page
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

version = f"viser-v{metadata.version('viser')}"
camera = {"type": "ViewerCameraMessage", "position": (0.0, 0.0, -3.0), "look_at": (0.0, 0.0, 0.0),
          "up_direction": (0.0, -1.0, 0.0), "wxyz": (1.0, 0.0, 0.0, 0.0), "fov": 1.0, "near": 0.01, "far": 100.0,
          "image_width": 640, "image_height": 360}

def raw(port):
    return connect(f"ws://127.0.0.1:{port}", subprotocols=[version], compression=None, max_queue=1, close_timeout=0.1)

def garbage(i):
    return [random.randbytes(300), "text", msgspec.msgpack.encode({"type": "Nothing"}), random.randbytes(1 << 18)][
        i % 4
    ]

for line in sys.stdin:
    kind, port, seconds, visits = line.split()
    began, done = time.monotonic(), 0
    pause = float(seconds) / int(visits)
    deaf = raw(port) if kind == "stalled" else None
    while time.monotonic() - began < float(seconds):
        if kind == "come_and_go":
            with Page(int(port)):
                pass
        elif kind == "garbage":
            with contextlib.suppress(WebSocketException, OSError), raw(port) as socket:
                socket.send(garbage(done))
        else:
            deaf.send(msgspec.msgpack.encode({**camera, "position": (0.01 * (done % 100), 0.0, -3.0)}))
        done += 1
        time.sleep(max(0.0, began + done * pause - time.monotonic()))
    if deaf:
        deaf.close()
    print(json.dumps(done), flush=True)
"""


class Run:
    """`splat train --viewer` on the sample scene, with a fixed number of Gaussians."""

    def __init__(self, folder: Path) -> None:
        from splat.data.sample import write_sample

        data = write_sample(folder / "sample", views=12, width=160, height=120, points=2000, truth=False)
        self.out = folder / "run"
        flags = ["--preset", "cpu", "--steps", "1000000", "--max-gaussians", "2000", "--viewer"]
        said = folder / "said.txt"  # a pipe that nobody reads would hold the run up
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "splat", "train", str(data), "--out", str(self.out), *flags],
            stdout=said.open("w"),
            stderr=subprocess.STDOUT,
        )
        while not (found := re.search(r"viewer: http://[^:]+:(\d+)", said.read_text())):
            if self.process.poll() is not None:
                raise SystemExit(f"the run has ended:\n{said.read_text()}")
            time.sleep(0.1)
        self.port = int(found[1])

    @property
    def step(self) -> int:
        text = (self.out / "metrics.jsonl").read_text()
        return json.loads(text[: text.rindex("\n")].splitlines()[-1])["step"]

    @property
    def processor(self) -> float:
        """Seconds that all its threads have run."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory(self) -> float:
        """Resident megabytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1000


def measure(seconds: float, rounds: int, visits: int) -> dict[str, Any]:
    rates: dict[str, list[float]] = {kind: [] for kind in (*KINDS, "alone")}
    memory, done = [], dict.fromkeys(KINDS, 0)
    visitors = subprocess.Popen(
        [sys.executable, "-c", VISITORS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT / "tests/helpers",
    )
    assert visitors.stdin is not None
    assert visitors.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        try:
            time.sleep(8)
            for kind in [*(kind for _ in range(rounds) for kind in ("alone", *_between(KINDS))), "alone"]:
                before, began = run.step, run.processor
                if kind == "alone":
                    time.sleep(seconds)
                else:
                    visitors.stdin.write(f"{kind} {run.port} {seconds} {-(-visits // rounds)}\n")
                    visitors.stdin.flush()
                    answer = visitors.stdout.readline()
                    if not answer:
                        raise SystemExit("the visitors' process has ended")
                    done[kind] += json.loads(answer)
                rates[kind].append((run.step - before) / (run.processor - began))
                if kind == KINDS[-1]:
                    memory.append(run.memory)
        finally:
            visitors.stdin.close()
            visitors.wait()
            run.process.terminate()
            run.process.wait()
    # Each phase against the mean of the two phases alone around it.
    around = [(a + b) / 2 for a, b in itertools.pairwise(rates["alone"])]
    lost = {
        kind: [1 - rate / alone for rate, alone in zip(rates[kind], around[i :: len(KINDS)], strict=True)]
        for i, kind in enumerate(KINDS)
    }
    return {
        "visits": done,
        "steps_per_processor_second": rates,
        "lost": {kind: statistics.median(values) for kind, values in lost.items()},
        "lost_each": lost,
        "memory_mb": memory,
    }


def _between(kinds: tuple[str, ...]) -> list[str]:
    """The kinds with a phase alone between any two."""
    return [word for kind in kinds for word in (kind, "alone")][:-1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--visits", type=int, default=200)
    args = parser.parse_args()
    result = measure(args.seconds, args.rounds, args.visits)
    for kind in KINDS:
        print(
            f"{kind.replace('_', ' '):<14}{result['visits'][kind]:6} {100 * result['lost'][kind]:7.1f} % fewer steps"
        )
    print(f"memory after each round: {', '.join(f'{value:.0f}' for value in result['memory_mb'])} MB")
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
