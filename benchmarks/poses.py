"""Which of several sets of poses of the same photographs is the more exact one.

    python benchmarks/poses.py --tracks A/sparse/0 B/sparse/0 --poses a=A b=B c=A/transforms.json [--out poses.json]

Points of the COLMAP models --tracks are found anew under each set of poses (the cameras held, the points adjusted), and
the distances of their projections from the features are compared: poses that are off leave larger ones. A set of poses
is at an advantage on tracks that it was adjusted to; tracks of a third model judge fairly. --poses takes whatever
`splat train` takes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import torch

from splat.data import Frame, read_scene
from splat.data.depth import source_camera
from splat.training.align import similarity

SHOWN = 6  # photographs, those of which the positions differ most


def under(tracks: Path, poses: dict[str, Frame]) -> dict[str, np.ndarray]:
    """Errors in pixels of the features of each photograph, by name, with these cameras and the points that fit them."""
    model = pycolmap.Reconstruction(tracks)
    images = {Path(image.name).name: image for image in model.images.values()}
    names = sorted(images.keys() & poses.keys())
    source = torch.tensor(np.array([images[name].projection_center() for name in names]))
    target = torch.stack([poses[name].camera.position.double() for name in names])
    scale, rotation, shift = similarity(source, target)
    placed = np.hstack([scale * rotation.numpy(), shift.numpy()[:, None]])
    model.transform(pycolmap.Sim3d(placed))
    config = pycolmap.BundleAdjustmentConfig()
    for name in names:
        image, frame = images[name], poses[name]
        taken, camera = source_camera(frame), model.camera(image.camera_id)
        camera.model, camera.params = getattr(pycolmap.CameraModelId, taken.model), list(taken.params)
        pose = frame.camera.world_to_camera[:3].double().numpy()
        model.frame(image.frame_id).rig_from_world = pycolmap.Rigid3d(pose)
        config.add_image(image.image_id)
        config.set_constant_rig_from_world_pose(image.frame_id)
        config.set_constant_cam_intrinsics(image.camera_id)
    options = pycolmap.BundleAdjustmentOptions(print_summary=False)
    options.ceres.solver_options.num_threads = 1
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    return {name: _errors(model, images[name].image_id) for name in names}


def _errors(model: Any, identity: int) -> np.ndarray:
    image = model.image(identity)
    off = []
    for feature in image.points2D:
        if feature.has_point3D():
            at = image.project_point(model.points3D[feature.point3D_id].xyz)
            if at is not None:  # else it lies behind the camera
                off.append(float(np.hypot(*(at - feature.xy))))
    return np.array(off)


def apart(first: dict[str, Frame], second: dict[str, Frame]) -> dict[str, float]:
    """Distances of the positions after the best similarity, in shares of the extent of the second set."""
    names = sorted(first.keys() & second.keys())
    source = torch.stack([first[name].camera.position.double() for name in names])
    target = torch.stack([second[name].camera.position.double() for name in names])
    scale, rotation, shift = similarity(source, target)
    extent = 1.1 * (target - target.mean(0)).norm(dim=1).max()
    off = (scale * source @ rotation.T + shift - target).norm(dim=1) / extent
    return dict(zip(names, off.tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tracks", type=Path, nargs="+", required=True, metavar="MODEL")
    parser.add_argument("--poses", nargs="+", required=True, metavar="NAME=DATA")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    sets = {}
    for text in args.poses:
        name, _, path = text.partition("=")
        sets[name] = {Path(frame.name).name: frame for frame in read_scene(Path(path)).frames}
    errors = {(str(t), name): under(t, poses) for t in args.tracks for name, poses in sets.items()}
    means = {str(t): {} for t in args.tracks}
    for (tracks, name), found in errors.items():
        means[tracks][name] = float(np.concatenate(list(found.values())).mean())
        print(f"tracks of {tracks}: {means[tracks][name]:.4f} px with the poses of {name}")
    names, report = list(sets), []
    for number, one in enumerate(names):
        for other in names[:number]:
            off = apart(sets[one], sets[other])
            print(
                f"{one} and {other}, farthest apart (shares of the extent; mean errors by tracks and poses):"
            )
            for photo in sorted(off, key=lambda name: -off[name])[:SHOWN]:
                by = {
                    f"{tracks} {name}": float(found[photo].mean())
                    for (tracks, name), found in errors.items()
                    if name in (one, other)
                }
                report.append({"sets": [one, other], "photograph": photo, "apart": off[photo], "errors": by})
                told = "  ".join(f"{value:.3f}" for value in by.values())
                print(f"  {photo}  {100 * off[photo]:.3f} %   {told}")
    if args.out:
        args.out.write_text(json.dumps({"means": means, "farthest": report}, indent=1) + "\n")


if __name__ == "__main__":
    main()
