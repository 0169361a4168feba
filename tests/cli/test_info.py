"""`splat info`: what it tells of files, folders, runs and datasets."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scenes
import torch

from splat import codecs
from splat.core import Gaussians


@pytest.fixture
def scene() -> Gaussians:
    """200 Gaussians of SH degree 3 without anything suspicious."""
    soft = scenes.soft(200).to(torch.float32)
    return replace(soft, log_scales=soft.log_scales - 2)


def facts_of(splat, path: Path) -> dict:
    done = splat("info", path, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_scene_in_full(splat, scene, tmp_path):
    path = tmp_path / "scene.ply"
    codecs.encode(scene, path)
    facts = facts_of(splat, path)
    assert (facts["kind"], facts["format"], facts["count"], facts["sh_degree"]) == ("scene", "PLY", 200, 3)
    assert facts["bytes"] == path.stat().st_size == sum(facts["parts"].values())
    assert facts["parts"]["harmonics"] == 45 * 4 * 200
    assert facts["parts"]["positions"] == facts["parts"]["normals"] == 3 * 4 * 200
    assert facts["bytes_per_gaussian"] == pytest.approx(path.stat().st_size / 200)
    assert sum(facts["opacity"]["histogram"]["counts"]) == 200
    assert facts["suspicious"] == []
    lines = splat("info", path).out.splitlines()
    bars = [line for line in lines if line.startswith(("scale", "opacity"))]
    assert len(bars) == 2
    assert all("█" in line and "median" in line for line in bars)


def test_histograms_need_no_unicode(scene, tmp_path):
    path = tmp_path / "scene.ply"
    codecs.encode(scene, path)
    command = [sys.executable, "-X", "utf8=0", "-m", "splat", "info", str(path)]
    done = subprocess.run(
        command, capture_output=True, env={"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"|" in done.stdout
    assert b"@" in done.stdout


def test_what_is_suspicious_is_told(splat, scene, tmp_path):
    def told(changed: Gaussians) -> str:
        path = tmp_path / "scene.ply"
        codecs.encode(changed, path)
        return "\n".join(facts_of(splat, path)["suspicious"])

    faint = scene.logit_opacities.clone()
    faint[:50] = -9
    assert "too transparent to be drawn (opacity under 1/255): 50 of 200" in told(
        replace(scene, logit_opacities=faint)
    )
    flat = scene.sh.clone()
    flat[:, 1:] = 0
    assert "the harmonics of bands 1 to 3 are all zero" in told(replace(scene, sh=flat))
    # Around 2^20 float32 has steps of 1/8, or of 1/16: more than a hundredth of every scale here.
    assert "float32 rounds them" in told(replace(scene, means=scene.means + 2**20))
    giant = scene.log_scales.clone()
    giant[7] = 9
    assert "Gaussians larger than the radius" in told(replace(scene, log_scales=giant))
    activated = replace(scene, logit_opacities=scene.opacities(), log_scales=scene.scales())
    assert "activated values where logits belong" in told(activated)


def test_nan_is_counted_not_refused(splat, scene, tmp_path):
    path = tmp_path / "scene.ply"
    codecs.encode(scene, path)
    content = bytearray(path.read_bytes())
    content[-4:] = np.float32(np.nan).tobytes()
    path.write_bytes(content)
    assert facts_of(splat, path)["suspicious"] == [
        "Gaussians with NaN or infinite values: 1; the first is Gaussian 199"
    ]


@pytest.mark.parametrize("extension", codecs.extensions())
def test_every_format_accounts_for_its_bytes(splat, scene, tmp_path, extension):
    path = tmp_path / (f"scene{extension}" if extension.startswith(".") else extension)
    codecs.encode(scene, path)
    facts = facts_of(splat, path)
    assert facts["format"] == codecs.format_to_write(path).name
    assert facts["count"] == 200
    on_disk = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert sum(facts["parts"].values()) == facts["bytes"] == on_disk
    assert str(path) in splat("info", path).out
    if path.suffix == ".json":
        assert facts_of(splat, tmp_path)["bytes"] == on_disk  # the folder is the same scene
