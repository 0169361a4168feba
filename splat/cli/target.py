"""--target-size and --target-psnr-drop: the search of splat.codecs.search on real files and real pictures."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from splat.cli.command import size
from splat.cli.export_job import Job
from splat.codecs import search
from splat.codecs.parts import parts
from splat.core import UsageError

# A quality met on the views that the search looks at may be missed on all of them: it is then raised by what
# is missing, at most this often.
_ROUNDS = 4

Chosen = tuple[search.Plan, dict[str, Any]]


def for_size(job: Job, most: int) -> Chosen:
    """The plan of the best file of at most `most` bytes; UsageError where there is none."""
    with _trials(job) as (hunt, _):
        try:
            found = hunt.for_size(most)
        except search.Unreachable as error:
            raise UsageError(
                f"--target-size {job.args.target_size} cannot be met: the smallest {job.form.name} file of this "
                f"scene has {size(error.nearest.bytes)} ({_words(job, error.nearest.plan)}), "
                f"{error.nearest.psnr:.2f} dB; allow that much, or choose another format"
            ) from None
    return found.plan, {"bytes": most, "chosen": _words(job, found.plan)}


def for_quality(job: Job, drop: float) -> Chosen:
    """The plan of the smallest file that loses at most `drop` dB; UsageError where there is none."""
    if job.photographs is None:
        raise UsageError(
            "--target-psnr-drop needs photographs: export a run, or name the scene's dataset with --data"
        )
    before = {every: job.psnr_before(every) for every in (False, True)}
    with _trials(job) as (hunt, file):
        margin = 0.0
        for _ in range(_ROUNDS):
            try:
                found = hunt.for_quality(before[False] - drop + margin)
            except search.Unreachable as error:
                lost = before[False] - error.nearest.psnr
                raise UsageError(
                    f"--target-psnr-drop {drop:g} cannot be met: the best {job.form.name} file of the scene "
                    f"({size(error.nearest.bytes)}) already loses {lost:.3f} dB; allow that much, "
                    "or choose another format"
                ) from None
            excess = before[True] - job.psnr(file(found.plan)) - drop
            if excess <= 0:
                return found.plan, {"psnr_drop": drop, "chosen": _words(job, found.plan)}
            margin += 1.1 * excess
    raise UsageError(
        f"--target-psnr-drop {drop:g} is met on some of the views only, and by {excess:.3f} dB missed on all of "
        "them: allow a little more"
    )


@contextmanager
def _trials(job: Job) -> Iterator[tuple[search.Search, Any]]:
    """A search that writes its files to a folder of its own, which goes with it, and what gives a plan's file."""
    form, own = job.form, job.options
    # What the user has set is not for the search to choose.
    default = form.options()
    ladder = [
        {name: value for name, value in rung.items() if getattr(own, name) == getattr(default, name)}
        for rung in form.ladder
    ]
    top = min(job.scene.sh_degree, form.sh_degree)
    with tempfile.TemporaryDirectory(prefix="splat-export-") as folder:
        latest: dict[str, Any] = {}

        def file(plan: search.Plan) -> Path:
            """The plan's file; the latest one alone is kept."""
            if latest.get("key") != plan.key:
                place = Path(folder) / "trial"
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir()
                latest["key"] = None
                job.encode(plan, place / job.args.out.name)
                latest.update(key=plan.key, path=place / job.args.out.name)
            return latest["path"]

        def tried(plan: search.Plan, count: int, psnr: float | None) -> None:
            if psnr is not None:
                print(f"tried {_words(job, plan)}: {size(count)}, {psnr:.2f} dB", file=sys.stderr)

        yield (
            search.Search(
                len(job.scene),
                range(top, -1, -1),
                [dict(entry) for entry in dict.fromkeys(tuple(sorted(rung.items())) for rung in ladder)],
                write=lambda plan: sum(parts(form, file(plan)).values()),
                measure=lambda plan: job.psnr(file(plan), every=False),
                tried=tried,
            ),
            file,
        )


def _words(job: Job, plan: search.Plan) -> str:
    """A plan for people."""
    whole = len(job.scene)
    pruned = (
        f" ({100 * (1 - plan.keep / whole):.1f}% pruned by {job.args.method})" if plan.keep < whole else ""
    )
    options = "".join(f", {name.replace('_', ' ')} {value}" for name, value in plan.options.items())
    return f"{plan.keep:,} Gaussians{pruned}, SH degree {plan.sh_degree}{options}"
