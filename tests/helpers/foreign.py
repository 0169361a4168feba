"""Writes a COLMAP dataset's cameras and points as other programs would, from what those programs document.

Every writer is derived from the documentation named beside it and shares nothing with the readers. Projections by the
documented equations, from the numbers that stand in the files, check the writers themselves.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pycolmap

FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Lens:
    """OpenCV's numbers, pixels with centres at +0.5."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    k: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    p: tuple[float, float] = (0.0, 0.0)

    def project(self, local: np.ndarray) -> np.ndarray:
        """[P, 2] pixels of [P, 3] points in camera coordinates, by OpenCV's equations with r^8."""
        x, y = local[:, 0] / local[:, 2], local[:, 1] / local[:, 2]
        r2 = x * x + y * y
        radial = 1 + sum(k * r2**n for n, k in enumerate(self.k, 1))
        p1, p2 = self.p
        u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        v = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        return np.stack([u * self.fx + self.cx, v * self.fy + self.cy], 1)


@dataclass
class Truth:
    """What all formats are to say: poses [4, 4] world to camera by name, points, and which images see them."""

    lens: Lens
    poses: dict[str, np.ndarray]
    xyz: np.ndarray
    rgb: np.ndarray
    seen: list[list[str]]
    images: Path
    depth: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return sorted(self.poses)

    def pixels(self, name: str) -> np.ndarray:
        """[P, 2] pixels of all points in an image."""
        pose = self.poses[name]
        return self.lens.project(self.xyz @ pose[:3, :3].T + pose[:3, 3])

    def copy_images(self, folder: Path) -> None:
        shutil.copytree(self.images, folder, dirs_exist_ok=True)


def truth_of(dataset: Path, lens: Callable[[Lens], Lens] | None = None, points: int = 40) -> Truth:
    """The cameras and some points of a COLMAP dataset with one camera; `lens` may change the camera."""
    model = pycolmap.Reconstruction(str(dataset / "sparse" / "0"))
    camera = next(iter(model.cameras.values()))
    values = [float(value) for value in camera.params]
    k, p = (0.0, 0.0, 0.0, 0.0), (0.0, 0.0)
    if camera.model.name == "OPENCV":
        fx, fy, cx, cy, k1, k2, *p = values
        k = (k1, k2, 0.0, 0.0)
    elif camera.model.name == "SIMPLE_RADIAL":
        fx, cx, cy, k1 = values
        fy, k = fx, (k1, 0.0, 0.0, 0.0)
    else:
        fx, fy, cx, cy = values
    found = Lens(camera.width, camera.height, fx, fy, cx, cy, k, tuple(p))
    poses, names = {}, {}
    for identity, image in model.images.items():
        poses[image.name] = np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]])
        names[identity] = image.name
    chosen = [model.points3D[i] for i in sorted(model.points3D)[:points]]
    seen = [sorted({names[e.image_id] for e in point.track.elements}) for point in chosen]
    xyz = np.array([point.xyz for point in chosen])
    rgb = np.array([point.color for point in chosen], dtype=np.uint8)
    return Truth(lens(found) if lens else found, poses, xyz, rgb, seen, dataset / "images")


def write_ply(path: Path, xyz: np.ndarray, rgb: np.ndarray) -> None:
    head = f"ply\nformat ascii 1.0\nelement vertex {len(xyz)}\n"
    head += "".join(f"property double {axis}\n" for axis in "xyz")
    head += "".join(f"property uchar {channel}\n" for channel in ("red", "green", "blue")) + "end_header\n"
    rows = (" ".join([*(f"{v:.17g}" for v in p), *map(str, c)]) for p, c in zip(xyz, rgb, strict=True))
    path.write_text(head + "\n".join(rows) + "\n")


def rotation(axis: str, degrees: float) -> np.ndarray:
    """[3, 3] right-handed rotation about x, y or z."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return {
        "x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]),
    }[axis]


# Metashape: user manual, appendix "Camera models"; the chunk's transform leads from its coordinates to the world.

SIMILARITY = np.eye(4)
SIMILARITY[:3, :3] = 2.5 * rotation("z", 40) @ rotation("x", -25)
SIMILARITY[:3, 3] = (30.0, -7.0, 4.0)


def write_metashape(folder: Path, truth: Truth, kind: str = "frame") -> Path:
    lens, rigid = truth.lens, SIMILARITY.copy()
    rigid[:3, :3] /= 2.5
    # The world's scale is 1 and the chunk's 1 / 2.5: a camera to the chunk moves by less.
    to_chunk = np.linalg.inv(SIMILARITY)
    numbers = {"f": lens.fy, "cx": lens.cx - lens.width / 2, "cy": lens.cy - lens.height / 2}
    numbers |= {"b1": lens.fx - lens.fy, **{f"k{n}": value for n, value in enumerate(lens.k, 1)}}
    numbers |= {"p1": lens.p[1], "p2": lens.p[0]}
    size = f'<resolution width="{lens.width}" height="{lens.height}"/>'
    inner = "".join(f"<{name}>{value!r}</{name}>" for name, value in numbers.items() if value)
    cameras = []
    for index, name in enumerate(truth.names):
        matrix = to_chunk @ np.linalg.inv(truth.poses[name])
        matrix[:3, :3] *= 2.5  # camera transforms are rigid
        text = " ".join(f"{value:.17g}" for value in matrix.ravel())
        label = Path(name).stem
        transform = f"<transform>{text}</transform>"
        cameras.append(
            f'<camera id="{index}" sensor_id="0" component_id="0" label="{label}">{transform}</camera>'
        )
    cameras.append('<camera id="99" sensor_id="0" label="not aligned"/>')
    rot = " ".join(f"{value:.17g}" for value in rigid[:3, :3].ravel())
    shift = " ".join(f"{value:.17g}" for value in rigid[:3, 3])
    transform = f'<transform><rotation locked="1">{rot}</rotation><translation>{shift}</translation>'
    transform += '<scale locked="1">2.5</scale></transform>'
    first = '<calibration type="frame" class="initial"><f>1</f></calibration>'
    (folder / "cameras.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<document version="2.0.0"><chunk label="Chunk 1" enabled="true">'
        f'<sensors next_id="1"><sensor id="0" label="phone" type="{kind}">{size}{first}'
        f'<calibration type="{kind}" class="adjusted">{size}{inner}</calibration></sensor></sensors>'
        f'<components><component id="0" label="Component 1">{transform}</component></components>'
        f"<cameras>{''.join(cameras)}</cameras></chunk></document>\n"
    )
    write_ply(folder / "points.ply", truth.xyz, truth.rgb)
    truth.copy_images(folder / "images")
    return folder / "cameras.xml"


# RealityCapture: Epic, "Camera Geometry in RealityScan", sections 3 to 5 and appendix A.


def write_realitycapture(folder: Path, truth: Truth) -> Path:
    lens = truth.lens
    assert lens.fx == lens.fy, "the format has one focal length"
    side = max(lens.width, lens.height)
    lines = ["#name,x,y,alt,heading,pitch,roll,f,px,py,k1,k2,k3,k4,t1,t2"]
    for name in truth.names:
        to_world = np.linalg.inv(truth.poses[name])
        right, down, forwards, centre = to_world[:3, :4].T
        # The aircraft of the default mount: its nose is the camera's up, its right wing the camera's right, and
        # the camera looks down out of it. East, north, up become north, east, down.
        body = np.stack([-down, right, forwards], 1)[[1, 0, 2]] * [[1], [1], [-1]]
        heading = math.degrees(math.atan2(body[1, 0], body[0, 0]))
        pitch = math.degrees(-math.asin(body[2, 0]))
        roll = math.degrees(math.atan2(body[2, 1], body[2, 2]))
        # By the definition: first roll about north, then pitch about east, then heading about down.
        again = rotation("z", heading) @ rotation("y", pitch) @ rotation("x", roll)
        np.testing.assert_allclose(again, body, atol=1e-12)
        inner = [36 * lens.fx / side, (lens.cx - lens.width / 2) / side, (lens.cy - lens.height / 2) / side]
        values = [*centre, heading, pitch, roll, *inner, *lens.k, lens.p[1], lens.p[0]]
        lines.append(",".join([name, *(f"{value:.17g}" for value in values)]))
    (folder / "registration.csv").write_text("\n".join(lines) + "\n")
    write_ply(folder / "sparse.ply", truth.xyz, truth.rgb)
    truth.copy_images(folder / "images")
    return folder / "registration.csv"


# OpenSfM: doc/source/geometry.rst and dataset.rst.


def rotation_vector(matrix: np.ndarray) -> list[float]:
    """Axis times angle by the logarithm of a rotation (angle below 180 degrees)."""
    angle = math.acos(max(-1.0, min(1.0, (np.trace(matrix) - 1) / 2)))
    skew = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]])
    return (skew * (angle / (2 * math.sin(angle)) if angle else 0.5)).tolist()


def opensfm_camera(lens: Lens) -> dict:
    side = max(lens.width, lens.height)
    k1, k2, k3, _ = lens.k
    return {
        "projection_type": "brown", "width": lens.width, "height": lens.height, "focal_x": lens.fx / side,
        "focal_y": lens.fy / side, "c_x": (lens.cx - lens.width / 2) / side,
        "c_y": (lens.cy - lens.height / 2) / side, "k1": k1, "k2": k2, "p1": lens.p[0], "p2": lens.p[1], "k3": k3,
    }  # fmt: skip


def write_opensfm(folder: Path, truth: Truth) -> Path:
    shots = {}
    for name in truth.names:
        pose = truth.poses[name]
        vector = rotation_vector(pose[:3, :3])
        shots[name] = {"camera": "v2 phone", "rotation": vector, "translation": pose[:3, 3].tolist()}
    pairs = zip(truth.xyz.tolist(), truth.rgb.tolist(), strict=True)
    points = {
        f"{7 * i}": {"coordinates": x, "color": [float(c) for c in rgb]} for i, (x, rgb) in enumerate(pairs)
    }
    best = {"cameras": {"v2 phone": opensfm_camera(truth.lens)}, "shots": shots, "points": points}
    small = {"cameras": {}, "shots": {}, "points": {}}
    file = folder / "reconstruction.json"
    file.write_text(json.dumps([small, best]))
    rows = [f"{name}\t{7 * i}\t0\t0\t0\t0\t0\t0" for i, names in enumerate(truth.seen) for name in names]
    (folder / "tracks.csv").write_text("\n".join(["OPENSFM_TRACKS_VERSION_v2", *rows]) + "\n")
    truth.copy_images(folder / "images")
    return file


def write_odm(folder: Path, truth: Truth) -> Path:
    """cameras.json and odm_report/shots.geojson: opendm/shots.py writes the camera's position and the rotation."""
    camera = opensfm_camera(truth.lens)
    (folder / "cameras.json").write_text(json.dumps({"v2 phone": camera}))
    features = []
    for name in truth.names:
        pose = truth.poses[name]
        centre = (-pose[:3, :3].T @ pose[:3, 3]).tolist()
        values = {"filename": name, "width": camera["width"], "height": camera["height"]}
        values |= {
            "focal": camera["focal_x"],
            "translation": centre,
            "rotation": rotation_vector(pose[:3, :3]),
        }
        features.append({"type": "Feature", "properties": values})
    (folder / "odm_report").mkdir()
    file = folder / "odm_report" / "shots.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    truth.copy_images(folder / "images")
    return file


# Bundler: v0.4 user's manual, "Output format and scene representation".


def write_bundler(folder: Path, truth: Truth) -> Path:
    lens = truth.lens
    assert (lens.fx, lens.cx, lens.cy) == (lens.fy, lens.width / 2, lens.height / 2), "the format's camera"
    names = [*truth.names, "not_registered.png"]
    lines = ["# Bundle file v0.3", f"{len(names)} {len(truth.xyz)}"]
    for name in truth.names:
        # P = R X + t with x right, y up and z backwards.
        pose = np.array([[1.0], [-1.0], [-1.0]]) * truth.poses[name][:3]
        lines.append(f"{lens.fx:.17g} {lens.k[0]:.17g} {lens.k[1]:.17g}")
        lines += [" ".join(f"{value:.17g}" for value in row) for row in (*pose[:, :3], pose[:, 3])]
    lines += ["0 0 0"] + ["0 0 0"] * 4
    for xyz, rgb, seen in zip(truth.xyz, truth.rgb, truth.seen, strict=True):
        views = " ".join(f"{names.index(name)} 0 0.0 0.0" for name in seen)
        lines += [" ".join(f"{value:.17g}" for value in xyz), " ".join(map(str, rgb)), f"{len(seen)} {views}"]
    (folder / "bundle").mkdir()
    file = folder / "bundle" / "bundle.out"
    file.write_text("\n".join(lines) + "\n")
    (folder / "list.txt").write_text("".join(f"images/{name} 0 {lens.fx}\n" for name in names))
    truth.copy_images(folder / "images")
    return file


# Polycam: PolyCam/polyform, README, "Polycam's data format".


def write_polycam(folder: Path, truth: Truth) -> Path:
    from PIL import Image

    lens, keyframes = truth.lens, folder / "keyframes"
    for name in ("corrected_cameras", "depth", "confidence"):
        (keyframes / name).mkdir(parents=True)
    truth.copy_images(keyframes / "corrected_images")
    for name in truth.names:
        stem = Path(name).stem
        matrix = np.linalg.inv(truth.poses[name]) @ FLIP
        content = {f"t_{i}{j}": matrix[i, j] for i in range(3) for j in range(4)}
        content |= {"fx": lens.fx, "fy": lens.fy, "cx": lens.cx, "cy": lens.cy}
        content |= {"width": lens.width, "height": lens.height, "blur_score": 70.0}
        (keyframes / "corrected_cameras" / f"{stem}.json").write_text(json.dumps(content))
        depth = (truth.depth[name][1::2, 1::2] * 1000).round().astype(np.uint16)  # millimetres, half the size
        Image.fromarray(depth).save(keyframes / "depth" / f"{stem}.png")
        trust = np.full(depth.shape, 255, np.uint8)
        trust[: len(trust) // 2] = 0
        Image.fromarray(trust).save(keyframes / "confidence" / f"{stem}.png")
    return keyframes / "corrected_cameras" / f"{Path(truth.names[0]).stem}.json"


# TUM RGB-D benchmark: "File Formats".


def write_tum(folder: Path, truth: Truth) -> Path:
    from PIL import Image

    (folder / "rgb").mkdir()
    (folder / "depth").mkdir()
    poses, colours, depths = ["# ground truth"], ["# color images"], ["# depth maps"]
    for index, name in enumerate(truth.names):
        matrix = np.linalg.inv(truth.poses[name])
        time = 1305031102.175304 + index / 3
        quaternion = pycolmap.Rotation3d(matrix[:3, :3]).quat  # x y z w
        poses.append(f"{time + 0.004:.4f} " + " ".join(f"{v:.17g}" for v in (*matrix[:3, 3], *quaternion)))
        poses.append(f"{time + 0.1:.4f} 9 9 9 0 0 0 1")  # nobody looked then
        stored = f"{time:.6f}.png"
        shutil.copy(truth.images / name, folder / "rgb" / stored)
        colours.append(f"{time:.6f} rgb/{stored}")
        depth = (truth.depth[name] * 5000).round().clip(0, 65535).astype(np.uint16)
        Image.fromarray(depth).save(folder / "depth" / stored)
        depths.append(f"{time - 0.01:.6f} depth/{stored}")
    (folder / "rgb.txt").write_text("\n".join(colours) + "\n")
    (folder / "depth.txt").write_text("\n".join(depths) + "\n")
    (folder / "groundtruth.txt").write_text("\n".join(poses) + "\n")
    lens = truth.lens  # OpenCV's pixel centres are whole numbers
    (folder / "intrinsics.txt").write_text(f"{lens.fx!r} {lens.fy!r} {lens.cx - 0.5!r} {lens.cy - 0.5!r}\n")
    return folder / "groundtruth.txt"


# nerfstudio: docs, "Data conventions".


def write_nerfstudio(folder: Path, truth: Truth, ply: bool = True) -> Path:
    lens = truth.lens
    frames = []
    for name in truth.names:
        matrix = np.linalg.inv(truth.poses[name]) @ FLIP
        values = {
            "fl_x": lens.fx,
            "fl_y": lens.fy,
            "cx": lens.cx,
            "cy": lens.cy,
            "w": lens.width,
            "h": lens.height,
        }
        values |= {"k1": lens.k[0], "k2": lens.k[1], "p1": lens.p[0], "p2": lens.p[1]}
        frames.append({"file_path": f"images/{name}", "transform_matrix": matrix.tolist(), **values})
    content: dict = {"camera_model": "OPENCV", "frames": frames}
    if ply:
        write_ply(folder / "sparse_pc.ply", truth.xyz, truth.rgb)
        content["ply_file_path"] = "sparse_pc.ply"
    file = folder / "transforms.json"
    file.write_text(json.dumps(content))
    truth.copy_images(folder / "images")
    return file
