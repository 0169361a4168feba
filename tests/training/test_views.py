"""Views: order, backgrounds, resolutions; and what is known of memory."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from patience import wait

from splat.data import Photo
from splat.training import memory
from splat.training import views as views_module
from splat.training.readback import AHEAD, Readback
from splat.training.views import Views, composite, reduced


def test_every_epoch_shows_every_view_once_in_a_new_order(dataset: Any) -> None:
    views = Views(dataset, 1, "black")
    epochs = [[views.next(i).index for i in range(6)] for _ in range(3)]
    assert all(sorted(epoch) == dataset.train for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    again = Views(dataset, 1, "black")
    assert [again.next(i).index for i in range(6)] == epochs[0]


def test_state_brings_back_the_order(dataset: Any) -> None:
    views = Views(dataset, 1, "random")
    for i in range(8):
        views.next(i)
    other = Views(dataset, 99, "random")
    other.load_state_dict(views.state_dict())
    for i in range(10):
        mine, theirs = views.next(i), other.next(i)
        assert mine.index == theirs.index
        assert torch.equal(mine.background, theirs.background)


def test_random_backgrounds_show_through_transparent_photographs(dataset: Any) -> None:
    alpha = torch.zeros(20, 24, dtype=torch.uint8)
    dataset.photos = [Photo(p.image, alpha) for p in dataset.photos]
    views = Views(dataset, 1, "random")
    one, two = views.next(0), views.next(1)
    assert not torch.equal(one.background, two.background)
    for view in (one, two):
        expected = (255 * view.background).round().to(torch.uint8).expand(20, 24, 3)
        assert torch.equal(view.target, expected)


def test_composite_mixes_by_alpha() -> None:
    image = torch.full((1, 1, 3), 200, dtype=torch.uint8)
    alpha = torch.full((1, 1), 51, dtype=torch.uint8)  # one fifth
    over = composite(image, alpha, torch.tensor([1.0, 0.0, 0.5]))
    assert over.tolist() == [[[244, 40, 142]]]


def test_progressive_views_double_up_to_the_full_size(dataset: Any) -> None:
    views = Views(dataset, 1, "black", progressive=2, progressive_interval=10)
    sizes = {}
    for step in (0, 9, 10, 19, 20, 30):
        view = views.next(step)
        assert view.target.shape == (view.camera.height, view.camera.width, 3)
        sizes[step] = (view.camera.width, view.camera.fx)
    assert sizes == {0: (6, 6.0), 9: (6, 6.0), 10: (12, 12.0), 19: (12, 12.0), 20: (24, 24.0), 30: (24, 24.0)}


def test_reduction_averages_and_keeps_only_whole_pixels() -> None:
    image = torch.tensor([[0, 100], [100, 200]], dtype=torch.uint8)[..., None].repeat(2, 2, 3)
    mask = torch.full((4, 4), 255, dtype=torch.uint8)
    mask[0, 0] = 0
    small, kept = reduced(image, mask, 2, 2)
    assert small.unique().tolist() == [100]
    assert kept is not None
    assert kept.tolist() == [[0, 255], [255, 255]]


def test_the_cap_follows_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert 0 < memory.available(cpu) < 1 << 50
    monkeypatch.setattr(memory, "available", lambda device: 10 << 30)
    large = memory.cap_from_memory(cpu, 16)
    assert large * memory.bytes_per_gaussian(16) <= 10 << 30
    assert memory.cap_from_memory(cpu, 1) > 2 * large
    monkeypatch.setattr(memory, "available", lambda device: 0)
    assert memory.cap_from_memory(cpu, 16) == 1000


def test_the_control_groups_limit_is_read_in_both_versions(tmp_path: Path) -> None:
    assert memory._free_of_control_group(tmp_path) == []
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    assert memory._free_of_control_group(tmp_path) == []
    (tmp_path / "memory.max").write_text("1000\n")
    assert memory._free_of_control_group(tmp_path) == [995]
    (tmp_path / "memory.max").unlink()
    old = tmp_path / "memory"
    old.mkdir()
    (old / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (old / "memory.usage_in_bytes").write_text("5\n")
    assert memory._free_of_control_group(tmp_path) == []
    (old / "memory.limit_in_bytes").write_text("100\n")
    assert memory._free_of_control_group(tmp_path) == [95]


def test_only_failed_allocations_count_as_out_of_memory() -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert memory.is_out_of_memory(caught.value)
    assert memory.is_out_of_memory(MemoryError())
    assert not memory.is_out_of_memory(RuntimeError("shape mismatch"))
    assert not memory.is_out_of_memory(ValueError("out of memory"))


class Asked:
    """A dataset that counts how often each photograph is asked for."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.photos_asked: list[int] = []
        self.prefetched: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def photo(self, index: int) -> Photo:
        self.photos_asked.append(index)
        return self._dataset.photo(index)

    def prefetch(self, indices: list[int]) -> None:
        self.prefetched += indices


def test_photographs_stay_on_the_device_while_there_is_room(dataset: Any) -> None:
    """Room for two of six: those are asked for once in three epochs, and not decoded ahead again."""
    asked = Asked(dataset)
    size = dataset.photo(dataset.train[0]).nbytes
    views = Views(asked, 1, "black", keep_bytes=2 * size + 1)
    plain = Views(dataset, 1, "black")
    for step in range(18):
        assert torch.equal(views.next(step).target, plain.next(step).target)
    often = sorted(asked.photos_asked.count(index) for index in dataset.train)
    assert often == [1, 1, 3, 3, 3, 3]
    kept = {index for index in dataset.train if asked.photos_asked.count(index) == 1}
    asked.prefetched.clear()
    for step in range(6):
        views.next(step)
    assert asked.prefetched
    assert not kept & set(asked.prefetched)


def test_photographs_are_pinned_ahead_of_their_step(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another thread, each once while there is pinned memory for it."""
    pinned: list[tuple[int, str]] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append((int(tensor.sum()), threading.current_thread().name))
        return tensor.clone()

    monkeypatch.setattr(views_module, "pinned", pin)
    monkeypatch.setattr(Views, "_stages", lambda self: True)
    photo = dataset.photo(dataset.train[0])
    views = Views(dataset, 0, "black", keep_bytes=2 * photo.nbytes)
    shown = [views.next(0)]
    wait(lambda: len(pinned) >= 3)
    shown += [views.next(step) for step in range(1, len(dataset.train))]
    for view in shown:
        assert torch.equal(view.target, dataset.photo(view.index).image)
    assert sorted(total for total, _ in pinned) == sorted(
        int(dataset.photo(i).image.sum()) for i in dataset.train
    )
    assert any(name.startswith("photo") for _, name in pinned)
    again = [views.next(step) for step in range(len(dataset.train))]
    assert len(pinned) == len(dataset.train)
    assert {view.index for view in again} == set(dataset.train)


def test_readback_is_in_order_and_at_once_on_the_cpu() -> None:
    readback: Readback[str] = Readback()
    assert readback.received() == []
    readback.send("a", torch.tensor(1.5))
    readback.send("b", torch.tensor(float("inf")))
    assert readback.received() == [("a", 1.5), ("b", float("inf"))]
    assert readback.received() == []


def test_readback_waits_for_what_has_not_arrived_only_if_it_is_far_behind() -> None:
    class Arrival:
        waited = False

        def query(self) -> bool:
            return self.waited

        def synchronize(self) -> None:
            self.waited = True

    readback: Readback[int] = Readback()
    for step in range(AHEAD):
        readback._pending.append((step, torch.tensor(float(step)), Arrival()))
    assert readback.received() == []
    readback._pending.append((AHEAD, torch.tensor(0.0), Arrival()))
    assert readback.received() == [(0, 0.0)]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_readback_of_a_gpu_arrives() -> None:
    readback: Readback[int] = Readback()
    for step in range(3):
        readback.send(step, torch.tensor(step / 2, device="cuda"))
    torch.cuda.synchronize()
    assert readback.received() == [(0, 0.0), (1, 0.5), (2, 1.0)]
