"""Priors: files in any size, distorted photographs, the model of a user, providers of other packages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from splat.core import DataError, UsageError
from splat.data import Dataset, read_scene
from splat.data.intrinsics import Intrinsics
from splat.data.priors import priors, registry
from splat.data.priors.files import photograph_pixels
from splat.data.sample import write_sample
from splat.data.undistort import undistorted


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(
        tmp_path_factory.mktemp("priors") / "sample",
        views=4,
        width=64,
        height=48,
        points=60,
        samples=1,
        masks=True,
    )


@pytest.fixture
def data(folder: Path):
    with Dataset(read_scene(folder), downscale=2) as dataset:
        yield dataset


def test_depth_and_normals_come_from_files_at_the_training_size(data: Dataset, folder: Path):
    depth, normal = (priors(kind).at(data, 1) for kind in ("depth", "normal"))
    truth = np.load(folder / "depths" / "view_001.npy")
    assert depth.shape == (24, 32)
    # A training pixel's centre lies on the corner of four; the nearest is the one below and to the right.
    assert np.array_equal(depth.numpy(), truth[1::2, 1::2])
    torch.testing.assert_close(normal.norm(dim=-1), torch.ones(24, 32))
    assert priors("masks").at(data, 1).dtype == torch.bool


def test_a_png_of_16_bits_and_of_another_size_is_depth_too(data: Dataset, folder: Path, tmp_path: Path):
    root = tmp_path / "scene"
    (root / "depths").mkdir(parents=True)
    values = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16) + 1000
    Image.fromarray(values).save(root / "depths" / "view_000.png")
    data.scene = replace(data.scene, root=root)
    depth = priors("depth").at(data, 0)
    assert np.array_equal(depth.numpy(), values.repeat(2, 0).repeat(2, 1))
    assert priors("depth").at(data, 1) is None


def test_depth_maps_of_colmaps_stereo(data: Dataset, tmp_path: Path):
    """Written by pycolmap, with a value of its own for each pixel."""
    import pycolmap

    root = tmp_path / "dense"
    file = root / "stereo" / "depth_maps" / "view_000.png.geometric.bin"
    file.parent.mkdir(parents=True)
    values = np.arange(12 * 16, dtype=np.float32).reshape(12, 16)
    pycolmap.DepthMap.from_array(values, 0.0, 1000.0).write(file)
    data.scene = replace(data.scene, root=root)
    assert np.array_equal(priors("depth").at(data, 0).numpy(), values.repeat(2, 0).repeat(2, 1))
    assert priors("depth").at(data, 1) is None
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"geometric\.bin: is no array of COLMAP"):
        priors("depth").at(data, 0)


def test_priors_of_a_distorted_photograph_are_straightened_as_it_is(data: Dataset):
    source = Intrinsics("SIMPLE_RADIAL", (60.0, 32.0, 24.0, -0.1), 64, 48)
    bent = undistorted(source)
    camera = replace(
        data.scene.frames[0].camera,
        width=bent.width,
        height=bent.height,
        fx=bent.fx,
        fy=bent.fy,
        cx=bent.cx,
        cy=bent.cy,
    )
    frame = replace(data.scene.frames[0], camera=camera, distortion=bent)
    full = photograph_pixels(frame, bent.width, bent.height)
    expected = bent.source_pixels(range(bent.height))
    assert torch.equal(full.nan_to_num(-1), expected.nan_to_num(-1))
    straight = photograph_pixels(replace(frame, distortion=None), bent.width, bent.height)
    assert float((full - straight).abs().nan_to_num().max()) > 0.5


def test_flow_and_matches_are_between_two_views(data: Dataset, folder: Path, tmp_path: Path):
    root = tmp_path / "scene"
    for name in ("flow", "matches"):
        (root / name).mkdir(parents=True)
    np.save(root / "flow" / "view_000--view_001.npy", np.full((48, 64, 2), 4.0, np.float32))
    np.save(root / "matches" / "view_000--view_001.npy", np.array([[2.0, 4, 6, 8], [np.nan, 0, 0, 0]]))
    data.scene = replace(data.scene, root=root)
    # Photographs are twice as large as the training pictures.
    torch.testing.assert_close(priors("flow").at(data, 0, 1), torch.full((24, 32, 2), 2.0))
    assert priors("matches").at(data, 0, 1).tolist() == [[1, 2, 3, 4]]
    assert priors("flow").at(data, 1, 0) is None
    with pytest.raises(ValueError, match="between two views"):
        priors("flow").at(data, 0)
    with pytest.raises(ValueError, match="of one view"):
        priors("depth").at(data, 0, 1)


@pytest.mark.parametrize(
    "content", [np.zeros((48, 48), np.float32), np.zeros((48, 64, 2), np.float32), b"none"]
)
def test_a_file_that_does_not_fit_is_named(data: Dataset, tmp_path: Path, content):
    root = tmp_path / "scene"
    (root / "depths").mkdir(parents=True)
    file = root / "depths" / "view_000.npy"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        np.save(file, content)
    data.scene = replace(data.scene, root=root)
    with pytest.raises(DataError, match=r"view_000\.npy"):
        priors("depth").at(data, 0)


def make_model(file: Path, shape: list) -> None:
    """A network whose depth is 10 plus the mean of the three channels."""
    onnx = pytest.importorskip(
        "onnx", reason="the package onnx, which writes the test's model, is not installed"
    )
    helper, tensor = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("ReduceMean", ["picture", "axes"], ["mean"], keepdims=1),
        helper.make_node("Add", ["mean", "ten"], ["depth"]),
    ]
    graph = helper.make_graph(
        nodes,
        "depth",
        [helper.make_tensor_value_info("picture", tensor.FLOAT, shape)],
        [helper.make_tensor_value_info("depth", tensor.FLOAT, None)],
        [
            helper.make_tensor("axes", tensor.INT64, [1], [1]),
            helper.make_tensor("ten", tensor.FLOAT, [1], [10.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, str(file))


@pytest.mark.parametrize("shape", [[1, 3, 24, 32], [1, 3, "height", "width"]])
def test_a_users_model_gives_depth(data: Dataset, tmp_path: Path, shape: list):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    make_model(tmp_path / "depth.onnx", shape)
    options = {"model": str(tmp_path / "depth.onnx")}
    depth = priors("depth", "onnx", options).at(data, 0)
    image = data.photo(0).image.float() / 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = 10 + ((image - mean) / deviation).mean(-1)
    if shape[2] == 24:
        torch.testing.assert_close(depth, expected, rtol=1e-5, atol=1e-5)
    else:  # through a grid of multiples of 14 pixels and back
        assert depth.shape == expected.shape
        assert float((depth - expected).abs().median()) < 0.1
    inverse = priors("depth", "onnx", {**options, "inverse": True}).at(data, 0)
    torch.testing.assert_close(inverse, 1 / depth)


def test_models_that_are_not_there_or_are_none_are_refused(tmp_path: Path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    with pytest.raises(UsageError, match="model is missing"):
        priors("depth", "onnx")
    with pytest.raises(DataError, match="no such model"):
        priors("depth", "onnx", {"model": str(tmp_path / "none.onnx")})
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(DataError, match="cannot run this model"):
        priors("depth", "onnx", {"model": str(tmp_path / "bad.onnx")})


def test_providers_of_other_packages_are_found_and_faults_are_theirs(
    monkeypatch: pytest.MonkeyPatch, data: Dataset
):
    class Ones:
        name, kinds = "ones", frozenset({"depth"})

        def __init__(self, options):
            pass

        def at(self, kind, dataset, view, other):
            return torch.ones(2, 2)

    def broken():
        raise ImportError("no such module")

    dist = SimpleNamespace(name="acme")
    good = SimpleNamespace(name="ones", dist=dist, load=lambda: Ones)
    monkeypatch.setattr(registry, "entry_points", lambda group: [good])
    found = priors("depth", "ones")
    assert found.at(data, 0) is found.at(data, 0)
    with pytest.raises(UsageError, match="gives depth, not 'normal'"):
        priors("normal", "ones")
    with pytest.raises(UsageError, match="unknown provider of priors 'two'; there are files, onnx, ones"):
        priors("depth", "two")
    for name, load, message in (
        ("two", broken, "do not load"),
        ("files", lambda: Ones, "a name that is taken"),
    ):
        point = SimpleNamespace(name=name, dist=dist, load=load)
        monkeypatch.setattr(registry, "entry_points", lambda group, point=point: [point])
        with pytest.raises(UsageError, match=f"'{name}' of distribution acme {message}|acme take {message}"):
            priors("depth", "files")
