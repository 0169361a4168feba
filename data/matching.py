"""Points from features that match between posed photographs: detection and matching by pycolmap, poses as given."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from splat.core import Camera
from splat.data.scene import Points

_FLAT = 0.05  # standard deviation of brightness around a pixel below which it counts as low frequency
_FAINT = 0.25  # of COLMAP's threshold for a feature's contrast, in the copies


def matched_points(cameras: Sequence[Camera], images: Sequence[np.ndarray], seed: int = 0) -> Points:
    """Points that features of at least two photographs agree on, triangulated by COLMAP with the poses held fixed.

    Features crowd where contrast is high. So each photograph has a copy in which those places are masked out, and
    fainter features count: it finds points on what is smooth (the idea of EAP-GS, Dai and Xing 2024).

    Args:
        cameras: pinholes, at the sizes of the images.
        images: [H, W, 3] uint8, free of distortion.

    Returns:
        Points with errors and colours; none where nothing matches.
    """
    import pycolmap
    from PIL import Image

    pycolmap.set_random_seed(seed)
    with tempfile.TemporaryDirectory(prefix="splat-") as scratch:
        folder, copies = Path(scratch), len(images)
        database = folder / "database.db"
        for name in ("all", "masks", "model"):
            (folder / name).mkdir()
        for number, image in enumerate(images):
            for copy in (number, number + copies):
                Image.fromarray(image).save(folder / "all" / _name(copy), compress_level=1)
            flat = _low_frequencies(image).astype(np.uint8) * 255
            Image.fromarray(flat).save(folder / "masks" / f"{_name(number + copies)}.png")
        for first, masked in ((0, False), (copies, True)):
            reader = pycolmap.ImageReaderOptions(camera_model="PINHOLE")
            options = pycolmap.FeatureExtractionOptions()
            if masked:
                reader.mask_path = folder / "masks"
                options.sift.peak_threshold *= _FAINT
            pycolmap.extract_features(
                database,
                folder / "all",
                image_names=[_name(first + number) for number in range(copies)],
                camera_mode=pycolmap.CameraMode.PER_IMAGE,
                reader_options=reader,
                extraction_options=options,
                device=pycolmap.Device.cpu,
            )
        model = _posed(database, cameras)
        pycolmap.match_exhaustive(database, device=pycolmap.Device.cpu)
        pipeline = pycolmap.IncrementalPipelineOptions(min_num_matches=8, random_seed=seed)
        found = pycolmap.triangulate_points(
            model, database, folder / "all", folder / "model", options=pipeline
        )
        points = [point for _, point in sorted(found.points3D.items())]
    return Points(
        torch.from_numpy(np.array([point.xyz for point in points], np.float64).reshape(-1, 3)),
        torch.from_numpy(np.array([point.color for point in points], np.uint8).reshape(-1, 3)),
        torch.tensor([point.error for point in points], dtype=torch.float32),
    )


def _posed(database: Path, cameras: Sequence[Camera]) -> Any:
    """A model of the database's images with the true cameras and poses, which the database is given as well."""
    import pycolmap

    model = pycolmap.Reconstruction()
    with pycolmap.Database.open(database) as store:
        for image in sorted(store.read_all_images(), key=lambda image: image.image_id):
            given = cameras[int(Path(image.name).stem) % len(cameras)]
            camera = store.read_camera(image.camera_id)
            camera.params = [given.fx, given.fy, given.cx, given.cy]
            camera.has_prior_focal_length = True
            store.update_camera(camera)
            model.add_camera_with_trivial_rig(camera)
            pose = pycolmap.Rigid3d(given.world_to_camera.double().cpu().numpy()[:3])
            model.add_image_with_trivial_frame(
                pycolmap.Image(image.name, np.empty((0, 2)), image.camera_id, image.image_id), pose
            )
    return model


def _name(number: int) -> str:
    return f"{number:06d}.png"


def _low_frequencies(image: np.ndarray) -> np.ndarray:
    """[H, W] bool: where brightness hardly varies over the hundredth of the picture's longer side."""
    from scipy.ndimage import uniform_filter

    luma = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    size = max(5, max(luma.shape) // 100)
    mean = uniform_filter(luma, size)
    variance = (uniform_filter(luma**2, size) - mean**2).clip(0)
    return variance < _FLAT**2
