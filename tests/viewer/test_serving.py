"""Where the viewer is served, what it says of it, and the commands that start it."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from page import Page
from scenes import mixed

from splat import codecs
from splat.cli import main
from splat.core import DeviceError, UsageError
from splat.viewer.serving import Address, announcement, free_port, import_viser


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_port_that_is_taken_makes_way_for_the_next(taken: int) -> None:
    port = free_port(Address(port=taken))
    assert taken < port < taken + 50
    lines = announcement(Address(port=taken), port)
    assert lines[0] == f"viewer: http://127.0.0.1:{port}"
    assert any(f"port {taken} is taken" in line for line in lines)


def test_the_announcement_names_the_tunnel_or_warns() -> None:
    here = announcement(Address(port=8080), 8080)
    assert any("ssh -L 8080:127.0.0.1:8080 " in line for line in here)
    assert not any("warning" in line for line in here)
    everywhere = announcement(Address("0.0.0.0", 8080), 8080)
    assert everywhere[0] == "viewer: http://localhost:8080"
    assert any("warning" in line and "steer" in line for line in everywhere)


def test_a_host_of_another_machine_is_an_error_with_a_remedy() -> None:
    with pytest.raises(
        DeviceError, match=r"192\.0\.2\.1:8080: the viewer cannot listen there .*--viewer-host"
    ):
        free_port(Address("192.0.2.1", 8080))
    with pytest.raises(DeviceError, match="--viewer-host"):
        free_port(Address("no such host", 8080))
    for port in (-3, 0, 65536):
        with pytest.raises(UsageError, match=f"--viewer-port {port}: a port is a number from 1 to 65535"):
            free_port(Address(port=port))


def test_without_viser_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(UsageError, match="pip install viser"):
        import_viser()
    assert main(["train", "nowhere", "--viewer"]) == 2  # before the dataset is looked for
    assert "pip install viser" in capsys.readouterr().err


def test_importing_the_package_and_training_need_no_viser() -> None:
    import subprocess

    code = (
        "import sys; sys.modules['viser'] = None; import splat, splat.cli.train, splat.training.run, "
        "splat.viewer, splat.viewer.app, splat.viewer.panels"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_splat_view_shows_files(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        codecs.encode(mixed(20 * number, number).to(torch.float32), tmp_path / f"{number}.ply")
    stop = threading.Event()
    monkeypatch.setattr("splat.cli.view.until_interrupted", stop.wait)
    codes: list[int] = []
    arguments = ["view", str(tmp_path / "1.ply"), str(tmp_path / "2.ply"), "--viewer-port", "8700"]
    command = threading.Thread(target=lambda: codes.append(main(arguments)))
    command.start()
    try:
        port = _port(capsys)
        with Page(port, (64, 48)) as page:
            page.wait_image(0)
            assert page.value("Scene") == "1 1.ply"
            page.set("Drawn", "in the browser")
            page.wait(lambda: page.splats == 20)
            page.trigger("Next scene")
            page.wait(lambda: page.splats == 40)
    finally:
        stop.set()
        command.join()
    assert codes == [0]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port))


def test_splat_view_without_anything_to_show(capsys: Any) -> None:
    assert main(["view"]) == 2
    assert main(["view", "no/such.ply"]) == 3
    assert "no/such.ply" in capsys.readouterr().err


def _port(capsys: Any) -> int:
    """The port that the command has announced."""
    said = ""
    for _ in range(600):
        said += capsys.readouterr().out
        if "viewer: http://" in said and "\n" in said.split("viewer: http://")[1]:
            return int(said.split("viewer: http://")[1].split("\n")[0].rsplit(":", 1)[1])
        threading.Event().wait(0.05)
    raise AssertionError(f"no address was announced: {said!r}")
