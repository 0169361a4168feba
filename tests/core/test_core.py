"""Gaussians, cameras, checks, files and the world frame."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import scenes
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splat.core import Camera, DataError, Gaussians
from splat.core.checks import check_tensor
from splat.core.files import replacing
from splat.core.finite import check_finite, describe
from splat.core.world import place

F64 = torch.float64


class TestGaussians:
    def test_covariances_are_symmetric_with_the_scales_as_deviations(self) -> None:
        scene = scenes.soft()
        covariances = scene.covariances()
        torch.testing.assert_close(covariances, covariances.mT)
        variances = torch.linalg.eigvalsh(covariances)
        torch.testing.assert_close(variances, (scene.scales() ** 2).sort(-1).values)

    def test_cat_is_the_inverse_of_select(self) -> None:
        scene = scenes.soft()
        scene.extras["score"] = torch.rand(7)
        both = Gaussians.cat([scene.select(torch.arange(3)), scene.select(torch.arange(3, 7))])
        for (name, left), (_, right) in zip(both.named_tensors(), scene.named_tensors(), strict=True):
            assert torch.equal(left, right), name

    def test_cat_refuses_what_one_scene_cannot_hold(self) -> None:
        scene = scenes.soft()
        with pytest.raises(ValueError, match="SH degree of scene 1 is 0, of scene 0 3"):
            Gaussians.cat([scene, replace(scene, sh=scene.sh[:, :1])])
        with pytest.raises(ValueError, match="antialiased of scene 1 is True, of scene 0 False"):
            Gaussians.cat([scene, replace(scene, antialiased=True)])
        with pytest.raises(ValueError, match="extras of scene 1"):
            Gaussians.cat([scene, replace(scene, extras={"a": torch.zeros(7)})])
        with pytest.raises(ValueError, match="no scenes"):
            Gaussians.cat([])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"means": torch.zeros(7, 2, dtype=F64)}, r"means: expected shape \[N, 3\], got \[7, 2\]"),
            ({"quats": torch.zeros(6, 4, dtype=F64)}, r"quats: expected shape \[N = 7, 4\], got \[6, 4\]"),
            ({"log_scales": torch.zeros(7, 3)}, "log_scales: expected torch.float64, got torch.float32"),
            ({"logit_opacities": torch.zeros(7, 1, dtype=F64)}, r"logit_opacities: expected shape \[N = 7\]"),
            ({"sh": torch.zeros(7, 3, 3, dtype=F64)}, "sh: spherical harmonics have 1, 4, 9 or 16"),
            ({"means": [[0, 0, 0]]}, "means: expected a tensor, got list"),
            ({"means": torch.zeros(7, 3, dtype=torch.int64)}, "means: expected a floating type"),
            (
                {"extras": {"a": torch.zeros(3)}},
                r"extras\['a'\]: expected a tensor \[N = 7, ...\], got \[3\]",
            ),
            ({"quats": torch.zeros(7, 4, dtype=F64, device="meta")}, "quats: expected on cpu, got on meta"),
        ],
    )
    def test_validate_names_the_tensor_what_was_expected_and_what_came(
        self, change: dict, message: str
    ) -> None:
        scene = scenes.soft()
        scene.validate()
        with pytest.raises((ValueError, TypeError), match=message):
            replace(scene, **change).validate()


class TestChecks:
    def test_letters_stand_for_one_size(self) -> None:
        sizes: dict[str, int] = {}
        check_tensor("a", torch.zeros(4, 2), ("N", None), sizes=sizes)
        assert sizes == {"N": 4}
        with pytest.raises(ValueError, match=r"b: expected shape \[N = 4\], got \[5\]"):
            check_tensor("b", torch.zeros(5), ("N",), sizes=sizes)

    def test_the_first_bad_gaussian_is_named_with_its_values(self) -> None:
        scene = scenes.soft()
        check_finite(scene, "step 5")
        scene.quats[4, 1] = torch.inf
        scene.sh[2, 5, 0] = torch.nan
        with pytest.raises(DataError) as error:
            check_finite(scene, "step 5")
        first, *rest = str(error.value).splitlines()
        assert first == (
            "step 5: 2 of 7 Gaussians have values that are NaN or infinite, in quats (1), sh (1); "
            "the first is Gaussian 2"
        )
        assert rest == describe(scene, 2).splitlines()
        assert "nan" in rest[4]

    def test_empty_scenes_are_finite(self) -> None:
        check_finite(scenes.soft().select(torch.zeros(0, dtype=torch.int64)), "empty")


class TestCamera:
    def test_look_at_puts_the_target_in_the_middle_and_up_upwards(self) -> None:
        position, target = torch.tensor([1.0, 2, 3], dtype=F64), torch.tensor([4.0, -1, 2], dtype=F64)
        up = torch.tensor([0.0, 0, 5], dtype=F64)
        camera = Camera.look_at(position, target, up, width=40, height=30, field_of_view=math.pi / 2)
        camera.validate()
        torch.testing.assert_close(camera.position, position)
        assert camera.fx == pytest.approx(20)

        def pixel(point: torch.Tensor) -> torch.Tensor:
            seen = camera.matrix @ (camera.world_to_camera @ torch.cat([point, point.new_ones(1)]))[:3]
            return seen[:2] / seen[2]

        torch.testing.assert_close(pixel(target), torch.tensor([20.0, 15.0], dtype=F64))
        above = pixel(target + 0.1 * up)
        assert float(above[0]) == pytest.approx(20)
        assert float(above[1]) < 15

    def test_look_at_refuses_what_has_no_answer(self) -> None:
        x, zero = torch.tensor([1.0, 0, 0]), torch.zeros(3)
        for target, up in ((zero, x), (x, x)):
            with pytest.raises(ValueError, match="look_at"):
                Camera.look_at(zero, target, up, width=4, height=4, field_of_view=1.0)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"width": 0}, "camera 'a.jpg': the size is 0 x 14 pixels"),
            ({"fx": math.nan}, "camera 'a.jpg': fx is nan; a focal length is a positive number of pixels"),
            ({"fy": -3.0}, "fy is -3.0"),
            ({"cx": math.inf}, "cx is inf; the principal point must be finite"),
            ({"world_to_camera": torch.eye(4) * 2}, "not a rotation"),
            ({"world_to_camera": torch.diag(torch.tensor([1.0, 1, -1, 1]))}, "determinant -1"),
            ({"world_to_camera": torch.full((4, 4), torch.nan)}, "the pose has values that are NaN"),
            ({"world_to_camera": torch.eye(4) + torch.eye(4).roll(3, 1).mul(1e-4)}, "last row"),
        ],
    )
    def test_validate(self, change: dict, message: str) -> None:
        camera = replace(scenes.camera(), name="a.jpg")
        camera.validate()
        with pytest.raises(DataError, match=message):
            replace(camera, **change).validate()

    def test_inverse(self) -> None:
        camera = scenes.camera()
        torch.testing.assert_close(
            camera.camera_to_world @ camera.world_to_camera, torch.eye(4, dtype=F64), rtol=0, atol=1e-12
        )


class TestFiles:
    def test_the_file_is_the_old_or_the_new_one(self, tmp_path: Path) -> None:
        path = tmp_path / "a.bin"
        with replacing(path) as file:
            file.write(b"old")

        def fail() -> None:
            with replacing(path) as file:
                file.write(b"half of the ne")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fail()
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_missing_folder_is_an_error_for_the_user(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="cannot be written"), replacing(tmp_path / "no" / "a.bin"):
            pass


class TestWorld:
    """Scenes recentred by an offset, and put back where float32 allows."""

    def test_near_scenes_are_put_back(self) -> None:
        scene = scenes.soft().to(torch.float32)
        placement = place(scene, torch.tensor([100.0, -50, 3], dtype=F64))
        assert placement.offset is placement.note is None
        expected = scene.means.double() + torch.tensor([100.0, -50, 3], dtype=F64)
        assert float((placement.gaussians.means.double() - expected).abs().max()) < 100 * 2**-23

    def test_far_scenes_stay_local_and_say_so(self) -> None:
        scene = scenes.soft().to(torch.float32)
        offset = torch.tensor([431000.0, 5.1e6, 100], dtype=F64)
        placement = place(scene, offset)
        assert torch.equal(placement.offset, offset)
        assert torch.equal(placement.gaussians.means, scene.means)
        assert "local coordinates" in placement.note

    def test_no_offset_is_no_change(self) -> None:
        scene = scenes.soft().to(torch.float32)
        assert place(scene, torch.zeros(3)).gaussians is scene

    def test_what_lies_out_of_reach_anyway_decides_nothing(self) -> None:
        """A floater at 1e6, where float32 has steps of 0.06, does not keep a scene of scale 1 local."""
        scene = scenes.soft().to(torch.float32)
        scene.means[0, 0] = 1e6
        assert place(scene, torch.tensor([3.3, 0, 0], dtype=F64)).offset is None

    @settings(max_examples=50)
    @given(exponent=st.floats(-1, 8), scale=st.floats(-6, 1), seed=st.integers(0, 9))
    def test_whatever_is_put_back_is_within_one_percent(
        self, exponent: float, scale: float, seed: int
    ) -> None:
        scene = scenes.soft(seed=seed).to(torch.float32)
        scene.log_scales += scale
        offset = torch.tensor([10**exponent, -(10**exponent) / 3, 0.7], dtype=F64)
        placement = place(scene, offset)
        median = float(scene.log_scales.exp().median())
        error = (scene.means.double() + offset - placement.gaussians.means.double()).abs().amax()
        if placement.offset is None:
            assert float(error) <= 0.01 * median
        else:
            rounded = (scene.means.double() + offset).float().double() - (scene.means.double() + offset)
            assert float(rounded.abs().amax()) > 0.01 * median
