"""Poses, refinement and placement on matches whose truth is known; which pairs are compared."""

from __future__ import annotations

import io
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from splat.core import DataError
from splat.data import frame
from splat.data.problems import DatasetError
from splat.data.sfm import (
    ProcessOptions,
    diagnosis,
    evidence,
    finish,
    gps,
    mapping,
    orientation,
    pairs,
    refine,
    snapshots,
)
from splat.data.sfm.picture import Picture
from splat.data.sfm.worker import Job


def synthetic(folder: Path, **options) -> tuple[Job, pycolmap.Reconstruction]:
    """A job whose database holds exact matches of 24 photographs by one camera, and the truth."""
    (folder / "process").mkdir(parents=True)
    (folder / "images").mkdir()
    pycolmap.set_random_seed(0)
    settings = pycolmap.SyntheticDatasetOptions(
        num_rigs=1, num_cameras_per_rig=1, num_frames_per_rig=24, num_points3D=200, camera_model_id="OPENCV"
    )
    settings.camera_params = [1280.0, 1275.0, 520.0, 380.0, 0.02, -0.01, 0.001, -0.001]
    settings.prior_position = True
    settings.prior_position_coordinate_system = pycolmap.PosePriorCoordinateSystem.WGS84
    store = pycolmap.Database.open(folder / "process" / "database.db")
    truth = pycolmap.synthesize_dataset(settings, store)
    for camera in store.read_all_cameras():  # as features.py would have begun
        camera.model = pycolmap.CameraModelId.SIMPLE_RADIAL
        camera.params = [1300.0, 512.0, 384.0, 0.0]
        store.update_camera(camera)
    store.close()
    names = sorted(image.name for image in truth.images.values())
    for name in names:  # the mapper takes colours from them
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (1024, 768), (90, 90, 90)).save(folder / "images" / name, format="PNG")
    pictures = [Picture(name, "one") for name in names]
    return Job(folder, pictures, ProcessOptions(**options), True, False, io.StringIO()), truth


def at_positions(job: Job, truth: pycolmap.Reconstruction, metres: float) -> dict[str, np.ndarray]:
    """Give the photographs GPS positions: those of the truth, so many metres a unit; returns them, east, north, up."""
    store = pycolmap.Database.open(job.database)
    centres = {image.name: metres * image.projection_center() for image in truth.images.values()}
    places = np.array(list(centres.values()))
    degrees = pycolmap.GPSTransform().enu_to_ellipsoid(places - places.mean(0), 55.7, 13.2, 40.0)
    known = dict(zip(centres, degrees, strict=True))
    names = {image.image_id: image.name for image in store.read_all_images()}
    for prior in store.read_all_pose_priors():
        prior.position = known[names[prior.corr_data_id.id]]
        prior.position_covariance = np.full((3, 3), np.nan)  # as EXIF leaves it
        store.update_pose_prior(prior)
    store.close()
    return centres


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    job, truth = synthetic(tmp_path_factory.mktemp("mapping"))
    result = mapping.reconstruct(job)
    (job.folder / "stages.json").write_text(json.dumps({"mapping": {"key": "", "result": result}}))
    return job, truth, result


def test_exact_matches_give_exact_poses(mapped):
    """The refinement frees two focal lengths, four terms of distortion and the principal point: only with all of them
    do exact matches leave no error, and poses that are the truth up to a similarity."""
    job, truth, result = mapped
    assert (result["attempt"], result["models"][0]["images"]) == ("incremental", 24)
    summary = finish.finish(job)
    assert summary["registered"] == 24
    assert summary["error"] < 1e-3
    assert summary["cameras"][0]["params"] == pytest.approx(list(truth.cameras[1].params), abs=1e-2)
    found = pycolmap.Reconstruction(job.data / "sparse" / "0")
    comparison = pycolmap.compare_reconstructions(found, truth, alignment_error="proj_center")
    assert comparison is not None
    errors = comparison["errors"]
    extent = 1.1 * max(np.linalg.norm(i.projection_center()) for i in truth.images.values())
    assert max(error.proj_center_error for error in errors) < 1e-4 * extent
    assert max(error.rotation_error_deg for error in errors) < 1e-2


def noisy(rigs: dict[int, tuple[float, float]], points: int, pixels: float) -> pycolmap.Reconstruction:
    """24 photographs by each camera, {camera: its principal point}, with features so many pixels off; the model has all
    principal points in the middle."""
    pycolmap.set_random_seed(0)
    settings = pycolmap.SyntheticDatasetOptions(
        num_rigs=len(rigs),
        num_cameras_per_rig=1,
        num_frames_per_rig=24,
        num_points3D=points,
        camera_model_id="OPENCV",
    )
    settings.camera_params = [1280.0, 1280.0, 512.0, 384.0, 0.02, -0.01, 0.001, -0.001]
    model = pycolmap.synthesize_dataset(settings)
    pycolmap.synthesize_noise(pycolmap.SyntheticNoiseOptions(point2D_stddev=pixels), model)
    for identity in model.reg_image_ids():
        image = model.image(identity)
        shift = np.array(rigs[image.camera_id]) - (512.0, 384.0)
        for feature in image.points2D:
            feature.xy = feature.xy + shift
    return model


@pytest.mark.parametrize(
    "rigs",
    [{1: (512.0, 384.0)}, {1: (552.0, 374.0)}, {1: (512.0, 384.0), 2: (552.0, 374.0)}],
    ids=["middle", "off", "one of two"],
)
def test_a_principal_point_is_freed_where_points_tell_of_it(tmp_path, rigs):
    job = Job(tmp_path, [], ProcessOptions(camera_model="OPENCV"), True, False, io.StringIO())
    model = refine.refine(noisy(rigs, 300, 0.5), job)
    for identity, centre in rigs.items():
        found = tuple(model.camera(identity).params[2:4])
        if centre == (512.0, 384.0):
            assert found == centre  # bit for bit: nobody has touched it
        else:
            assert found == pytest.approx(centre, abs=4.0)  # a tenth of the way


def test_what_a_principal_point_has_to_explain():
    assert not refine.earns(23513.0, 3493, 23508.0)  # a video: 7 pixels of drift, the rotations worse
    assert refine.earns(
        131446.0, 13625, 130392.0
    )  # fox: 17 pixels from the middle, the rotations six times better
    assert refine.earns(1.0, 200, 0.0)
    assert not refine.earns(0.0, 200, 0.0)
    assert not refine.earns(1.0, 200, 1.1)


def test_gps_tells_of_walks_and_not_of_vases(tmp_path):
    job, truth = synthetic(tmp_path)
    at_positions(job, truth, 1.0)
    assert gps.local(job.database) == {}  # the cameras stand on some metres
    centres = at_positions(job, truth, 100.0)
    places = gps.local(job.database)
    assert gps.off(truth, places) == pytest.approx(0.0, abs=0.1)  # the Earth is round
    between = [np.linalg.norm(places[a] - places[b]) for a, b in itertools.pairwise(sorted(places))]
    assert between == pytest.approx(
        [np.linalg.norm(centres[a] - centres[b]) for a, b in itertools.pairwise(sorted(places))], rel=1e-3
    )


def test_gps_as_a_prior(tmp_path):
    """The mapper's coordinates are then metres; positions without a precision get one, in a copy."""
    job, truth = synthetic(tmp_path)
    at_positions(job, truth, 100.0)
    folder = tmp_path / "gps"
    folder.mkdir()
    (path,) = mapping._with_gps(job, folder)
    model = pycolmap.Reconstruction(path)
    assert model.num_reg_images() == 24
    places = gps.local(job.database)
    assert gps.off(model, places) < 0.1 * gps._SIGMA
    size = np.ptp([image.projection_center() for image in model.images.values()], axis=0).max()
    assert size == pytest.approx(np.ptp(list(places.values()), axis=0).max(), rel=0.02)
    store = pycolmap.Database.open(job.database)
    assert np.isnan(store.read_all_pose_priors()[0].position_covariance).all()
    store.close()
    assert not list(folder.glob("database*"))


@pytest.mark.parametrize(
    ("posed", "expected", "tried"),
    [
        # attempt: (photographs, metres off GPS or None)
        ({"incremental": (24, None), "gps": (24, 1)}, "incremental", 1),
        ({"incremental": (24, 40), "held-focal": (23, 30), "gps": (22, 3), "global": (24, 1)}, "gps", 3),
        ({"incremental": (24, 40), "gps": (24, 30), "global": (24, 1)}, "incremental", 2),
        ({"incremental": (2, None), "gps": (12, 3), "global": (24, 50)}, "global", 3),
        ({"incremental": (5, 40), "gps": (20, 30), "global": (19, 3)}, "global", 3),
        # and the share of its matches that it contradicts
        ({"incremental": (15, None, 0.05), "global": (21, None, 0.14)}, "incremental", 2),
        ({"incremental": (15, None, 0.05), "global": (21, None, 0.08)}, "global", 2),
    ],
)
def test_the_attempt_that_is_taken(tmp_path, monkeypatch, posed, expected, tried):
    """The first that poses enough and agrees with GPS; else the one that explains the matches best, of those that do
    about as well one that agrees with GPS."""
    pictures = [Picture(str(n), "") for n in range(24)]
    job = Job(tmp_path, pictures, ProcessOptions(), True, False, io.StringIO())
    done = []

    def once(job, name, attempt):
        done.append(name)
        images, metres, *wrong = posed[name]
        share = wrong[0] if wrong else 0.0
        model = {"images": images, "gps": metres, "parallax": 9.0}
        return [{**model, "explained": 300 * images * (1 - share), "contradicted": 300 * images * share}]

    monkeypatch.setattr(mapping, "_attempts", lambda job: dict.fromkeys(posed))
    monkeypatch.setattr(mapping, "_once", once)
    assert mapping.reconstruct(job)["attempt"] == expected
    assert done == list(posed)[:tried]


def parts_apart(truth: pycolmap.Reconstruction) -> tuple[pycolmap.Reconstruction, list[int]]:
    """The truth with a third of the photographs, and what they see, turned and moved as one; and which these are."""
    model = pycolmap.Reconstruction(truth)
    moved = sorted(model.reg_image_ids())[::3]
    shift = pycolmap.Rigid3d(pycolmap.Rotation3d(np.array([0.0, 0.0, 0.5])), np.array([1.0, 2.0, 0.0]))
    for identity in moved:
        frame_ = model.frame(model.image(identity).frame_id)
        frame_.rig_from_world = frame_.rig_from_world * shift
    return model, moved


def test_matches_judge_a_model(tmp_path):
    """The truth explains them all; two parts put together wrongly, those within the parts."""
    job, truth = synthetic(tmp_path)
    store = pycolmap.Database.open(job.database)
    pairs_ = [pycolmap.pair_id_to_image_pair(pair) for pair in store.read_two_view_geometries()[0]]
    counts = [len(geometry.inlier_matches) for geometry in store.read_two_view_geometries()[1]]
    store.close()
    assert evidence.agreement(truth, job.database) == (sum(counts), 0)
    broken, moved = parts_apart(truth)
    within = sum(n for (a, b), n in zip(pairs_, counts, strict=True) if (a in moved) == (b in moved))
    explained, contradicted = evidence.agreement(broken, job.database)
    assert explained + contradicted == sum(counts)
    # Of a wrong pair those are explained whose points lie within 4 pixels of the wrong lines by chance.
    assert within <= explained <= within + 0.1 * (sum(counts) - within)
    for identity in moved:
        broken.deregister_frame(broken.image(identity).frame_id)
    few = [n for (a, b), n in zip(pairs_, counts, strict=True) if a not in moved and b not in moved]
    assert evidence.agreement(broken, job.database) == (sum(few), 0)


def test_a_wrong_model_of_more_photographs_is_not_taken(tmp_path, monkeypatch):
    """A mapper that poses all, with a third in the wrong place, against one that leaves this third out."""
    job, truth = synthetic(tmp_path)
    wrong, moved = parts_apart(truth)
    right = pycolmap.Reconstruction(truth)
    for identity in moved:
        right.deregister_frame(right.image(identity).frame_id)

    def write(model):
        def attempt(job, folder):
            (folder / "0").mkdir()
            model.write_binary(folder / "0")
            return [folder / "0"]

        return attempt

    monkeypatch.setattr(
        mapping, "_attempts", lambda job: {"incremental": write(right), "global": write(wrong)}
    )
    result = mapping.reconstruct(job)
    assert result["attempts"] == {"incremental": 16, "global": 24}
    assert result["attempt"] == "incremental"


class Watching(io.StringIO):
    """Reads the newest snapshot whenever the mapper tells how far it is, which it does while it works."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder, self._last = folder, ""
        self.seen: list[snapshots.Snapshot] = []
        self.folders = 0

    def write(self, text: str) -> int:
        self.folders = max(self.folders, len(list(self._folder.iterdir())))
        if (found := snapshots.newest(self._folder, self._last)) is not None:
            self._last = found[0]
            self.seen.append(found[1])
        return len(text)


def test_snapshots_show_the_model_grow(tmp_path, monkeypatch):
    """Models of rising size, few of them on the disk at a time and none in the end; the model is the same."""
    monkeypatch.setattr("splat.data.sfm.worker._INTERVAL", 0.0)
    job, _ = synthetic(tmp_path)
    plain = mapping.reconstruct(job)
    bits = {path: path.read_bytes() for path in job.folder.glob("models/incremental/0/*")}
    shutil.rmtree(job.folder / "models")
    stream = Watching(job.folder / snapshots.FOLDER)
    watched = mapping.reconstruct(replace(job, snapshots=True, stream=stream))
    sizes = [len(snapshot.cameras) for snapshot in stream.seen]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 10
    assert all(len(s.points) == len(s.colours) > 0 for s in stream.seen)
    assert 0 < stream.folders <= 4
    assert not (job.folder / snapshots.FOLDER).exists()
    assert watched == plain
    assert {path: path.read_bytes() for path in bits} == bits
    last = snapshots.read(job.folder / watched["models"][0]["folder"])
    given = pycolmap.Reconstruction(job.folder / watched["models"][0]["folder"])
    for image in given.images.values():
        assert np.allclose(last.cameras[image.name].position.numpy(), image.projection_center())


def test_a_half_written_snapshot_is_passed_over(mapped, tmp_path):
    job = mapped[0]
    whole = job.folder / "models" / "incremental" / "0"
    shutil.copytree(whole, tmp_path / "1")
    shutil.copytree(whole, tmp_path / "2")
    (tmp_path / "2" / "points3D.bin").write_bytes((whole / "points3D.bin").read_bytes()[:1000])
    assert snapshots.newest(tmp_path)[0] == "1"
    assert snapshots.newest(tmp_path, "1") is None
    assert snapshots.newest(tmp_path / "none") is None


def test_a_model_without_parallax_is_told(mapped, monkeypatch):
    monkeypatch.setattr(mapping, "_PARALLAX", 1e3)
    with pytest.raises(DatasetError, match=r"no parallax: the camera turned or stood still .* walk around"):
        mapping.reconstruct(mapped[0])


def test_parallax_is_the_largest_angle_at_a_point():
    """Two cameras one unit to each side of a point's foot, the point one unit ahead: 90 degrees."""
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(camera_id=1, model="PINHOLE", width=8, height=8, params=[8, 8, 4, 4])
    )
    for identity, x in enumerate((-1.0, 1.0), 1):
        image = pycolmap.Image(f"{identity}.png", np.zeros((1, 2)), 1, identity)
        pose = pycolmap.Rigid3d(np.hstack([np.eye(3), [[-x], [0], [0]]]))
        model.add_image_with_trivial_frame(image, pose)
    track = pycolmap.Track()
    track.add_element(1, 0)
    track.add_element(2, 0)
    model.add_point3D(np.array([0.0, 0.0, 1.0]), track, np.zeros(3, np.uint8))
    assert diagnosis.parallax(model) == pytest.approx(90)


def test_unregistered_photographs_are_explained(mapped):
    job = mapped[0]
    names = [picture.name for picture in job.pictures]
    (one,) = diagnosis.unregistered(job, set(names[1:]), ["incremental"])
    assert one["name"] == names[0]
    assert "too few matches with" in one["reason"]
    assert one["remedy"] == "add photographs nearby, or try --mapper global"
    (one,) = diagnosis.unregistered(job, set(names[1:]), ["incremental", "global"])
    assert one["remedy"] == "add photographs nearby"
    several = diagnosis.unregistered(job, set(), ["incremental"])
    assert all("belongs to another part of the scene" in entry["reason"] for entry in several)
    assert all(entry["remedy"] for entry in several)


@pytest.mark.parametrize("orientation_tag", range(1, 9))
def test_up_follows_exif(orientation_tag):
    """Pillow turns a picture upright; the row that is then on top lies where _UP says in the stored pixels."""
    from PIL import ImageOps

    up = orientation._UP[orientation_tag]
    stored = np.zeros((4, 6), dtype=np.uint8)
    if up[1]:
        stored[0 if up[1] < 0 else -1] = 255
    else:
        stored[:, 0 if up[0] < 0 else -1] = 255
    picture = Image.fromarray(stored)
    picture.getexif()[0x0112] = orientation_tag
    shown = np.asarray(ImageOps.exif_transpose(picture))
    assert (shown[0] == 255).all()
    assert (shown[1:] == 0).all()


@pytest.mark.parametrize("tag", [1, 6])
def test_upright_turns_the_mean_up_to_minus_y(mapped, tag):
    truth = pycolmap.Reconstruction(mapped[1])
    names = [image.name for image in truth.images.values()]
    matrix = orientation.upright(truth, dict.fromkeys(names, tag))
    assert np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3))
    orientation.apply(truth, matrix)
    row = {1: (1, -1), 6: (0, -1)}[tag]  # of the camera's axes that is up, and its sign
    ups = [row[1] * i.cam_from_world().rotation.matrix()[row[0]] for i in truth.images.values()]
    mean = np.mean(ups, axis=0)
    assert np.allclose(mean / np.linalg.norm(mean), [0, -1, 0], atol=1e-9)


@pytest.mark.parametrize("source", [(0, -1, 0), (0, 1, 0), (1, 0, 0), (0.6, 0, -0.8)])
def test_the_shortest_turn(source):
    target = np.array([0.0, -1.0, 0.0])
    turn = orientation._shortest_turn(np.array(source, dtype=float), target)
    assert np.allclose(turn @ np.array(source), target)
    assert np.linalg.det(turn) == pytest.approx(1)
    assert (np.trace(turn) - 1) / 2 == pytest.approx(float(np.dot(source, target)))  # no more than that angle


def test_gps_places_the_model_in_metres(mapped):
    """Positions that are a similarity of the model's, as degrees: that similarity comes back."""
    truth = mapped[1]
    angle = 0.7
    turn = np.array([[np.cos(angle), 0, -np.sin(angle)], [np.sin(angle), 0, np.cos(angle)], [0, -1, 0]])
    names = sorted(image.name for image in truth.images.values())
    centres = {image.name: image.projection_center() for image in truth.images.values()}
    local = np.array([12.0 * turn @ centres[name] for name in names])
    degrees = np.asarray(pycolmap.GPSTransform().enu_to_ellipsoid(local, 55.7, 13.2, 40.0))
    positions = {name: list(place) for name, place in zip(names, degrees, strict=True)}
    matrix, origin = orientation.by_gps(truth, positions, Path("data"), 0)
    assert origin == pytest.approx(degrees.mean(0).tolist())
    placed = np.array([matrix[:3, :3] @ centres[name] + matrix[:3, 3] for name in names])
    # The origins differ by some metres, over which the Earth's curve turns east and north by under 1e-5.
    assert np.allclose(placed, local - local.mean(0), atol=1e-3)


def test_too_few_gps_positions(mapped):
    with pytest.raises(DatasetError, match="only 0 posed photographs have a GPS position; use --orient up"):
        orientation.by_gps(mapped[1], {}, Path("data"), 0)


def test_the_frame_of_a_dataset(tmp_path):
    assert frame.read(tmp_path) is None
    matrix = np.eye(4)
    matrix[:3, :3] *= 2.0
    matrix[:3, 3] = [1, 2, 3]
    (tmp_path / "frame.json").write_text(json.dumps({"kind": "gps", "matrix": matrix.tolist()}))
    found = frame.read(tmp_path)
    assert found is not None
    assert found.scale == pytest.approx(2.0)
    (tmp_path / "frame.json").write_text('{"matrix": [[1]]}')
    with pytest.raises(DataError, match="damaged"):
        frame.read(tmp_path)


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> tuple[Path, list[Picture], np.ndarray]:
    """A database of 80 photographs of 8 places, each place with features of its own, in turn: (database, pictures,
    place of each)."""
    database = tmp_path_factory.mktemp("places") / "database.db"
    generator = np.random.default_rng(0)
    looks = generator.integers(0, 100, (8, 60, 128))
    place = np.arange(80) % 8
    store = pycolmap.Database.open(database)
    camera = pycolmap.Camera(model="PINHOLE", width=100, height=100, params=[90, 90, 50, 50])
    camera.camera_id = store.write_camera(camera)
    pictures = [Picture(f"{index:03d}.jpg", "one") for index in range(80)]
    for picture, where in zip(pictures, place, strict=True):
        image = pycolmap.Image(name=picture.name, camera_id=camera.camera_id)
        identity = store.write_image(image)
        noisy = (looks[where] + generator.integers(0, 20, (60, 128))).astype(np.uint8)
        points = np.hstack([generator.uniform(0, 100, (60, 2)), np.tile([1.0, 0, 0, 1], (60, 1))]).astype(
            np.float32
        )
        store.write_keypoints(identity, points)
        store.write_descriptors(
            identity, pycolmap.FeatureDescriptors(data=noisy, type=pycolmap.FeatureExtractorType.SIFT)
        )
    store.close()
    return database, pictures, place


def test_what_looks_alike_is_compared(places):
    database, pictures, place = places
    chosen = pairs.choose(pictures, "auto", database, seed=0)
    assert chosen == pairs.choose(pictures, "retrieval", database, seed=0)
    alike = {(i, j) for i in range(80) for j in range(i + 1, 80) if place[i] == place[j]}
    assert alike <= set(chosen)
    assert {(i, i + 1) for i in range(79)} <= set(chosen)
    assert len(chosen) < 80 * 79 / 2


def test_a_video_is_compared_along_and_where_it_comes_back(places):
    database, pictures, place = places
    frames = [Picture(picture.name, "one", "film") for picture in pictures]
    chosen = set(pairs.choose(frames, "auto", database, seed=0))
    assert {(i, i + step) for step in (1, 10, 16, 64) for i in range(80 - step)} <= chosen
    # The frames that look most alike, among those far away.
    far = [(i, j) for i, j in chosen if j - i > 10 and j - i not in (16, 32, 64)]
    assert far
    assert all(place[i] == place[j] for i, j in far)


def test_few_photographs_are_all_compared(places):
    chosen = pairs.choose(places[1][:60], "auto", places[0], seed=0)
    assert sorted(chosen) == [(i, j) for i in range(60) for j in range(i + 1, 60)]
