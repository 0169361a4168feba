"""A browser without a picture: what viser's page says and hears over its websocket, and no more."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable
from importlib import metadata
from typing import Any

import msgspec
import numpy as np
import zstandard
from patience import wait
from PIL import Image
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


class Page:
    """Connects as viser's page does and keeps what it would show.

    Attributes:
        elements: uuid -> properties of what is in the control panel.
        images: number of background images received; `image` is the latest.
        splats: number of splats in the scene, None where there are none.
        nodes: name -> sizes of each set of points or lines that was shown there, in turn.
        notifications: (title, body) of each.
    """

    def __init__(self, port: int, size: tuple[int, int] = (480, 270)) -> None:
        version = f"viser-v{metadata.version('viser')}"
        self.socket = connect(
            f"ws://127.0.0.1:{port}", subprotocols=[version], max_size=None, compression=None
        )
        self.size = size
        self.elements: dict[str, dict[str, Any]] = {}
        self.commands: dict[str, dict[str, Any]] = {}
        self.images = 0
        self.jpeg = b""
        self.splats: int | None = None
        self.nodes: dict[str, list[int]] = {}
        self.notifications: list[tuple[str, str]] = []
        self.camera: dict[str, Any] = {
            "position": (0.0, 0.0, -3.0),
            "look_at": (0.0, 0.0, 0.0),
            "up_direction": (0.0, -1.0, 0.0),
            "wxyz": (1.0, 0.0, 0.0, 0.0),
            "fov": 1.0,
        }
        self._placed: set[str] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        self.move()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()
        self._thread.join(5)

    def send(self, kind: str, **fields: Any) -> None:
        self.socket.send(msgspec.msgpack.encode({"type": kind, **fields}))

    def move(self, **camera: Any) -> None:
        """Tell the server where the camera is; its rotation follows from where it looks."""
        self.camera.update(camera)
        position, target, up = (np.array(self.camera[k]) for k in ("position", "look_at", "up_direction"))
        self.camera["wxyz"] = _looking(position, target, up)
        width, height = self.size
        extra = {"near": 0.01, "far": 1000.0, "image_width": width, "image_height": height}
        self.send("ViewerCameraMessage", **self.camera, **extra)

    @property
    def image(self) -> np.ndarray:
        """[H, W, 3] uint8 the latest background image."""
        return np.array(Image.open(io.BytesIO(self.jpeg)))

    def find(self, label: str) -> str | None:
        """The uuid of the element with the label."""
        with self._lock:
            for uuid, props in self.elements.items():
                if props.get("label") == label:
                    return uuid
        return None

    def press(self, label: str) -> None:
        self.send("GuiUpdateMessage", uuid=self._found(label), updates={"value": True})

    def set(self, label: str, value: Any) -> None:
        uuid = self._found(label)
        self.elements[uuid]["value"] = value
        self.send("GuiUpdateMessage", uuid=uuid, updates={"value": value})

    def value(self, label: str) -> Any:
        """The value of the element with the label."""
        return self.elements[self._found(label)]["value"]

    def trigger(self, label: str) -> None:
        """Run a command of the palette, as its hotkey does."""
        self.wait(lambda: any(c["label"] == label for c in self.commands.values()))
        uuid = next(uuid for uuid, c in self.commands.items() if c["label"] == label)
        self.send("CommandTriggerMessage", uuid=uuid)

    def text(self) -> str:
        """All markdown of the control panel."""
        with self._lock:
            return "\n".join(str(p["_markdown"]) for p in self.elements.values() if "_markdown" in p)

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Until the condition holds; AssertionError with what is shown where it does not."""
        return wait(condition, self._shown)

    def _shown(self) -> str:
        labels = [properties.get("label") for properties in self.elements.values()]
        return f"{self.images} images, {self.notifications}, {labels}"

    def wait_image(self, after: int | None = None) -> np.ndarray:
        """The next image (after that many)."""
        count = self.images if after is None else after
        self.wait(lambda: self.images > count)
        return self.image

    def _found(self, label: str) -> str:
        return self.wait(lambda: self.find(label))

    def _listen(self) -> None:
        with contextlib.suppress(ConnectionClosed, OSError):
            while True:
                raw = self.socket.recv()
                size = int.from_bytes(raw[8:16], "little")
                inner = zstandard.ZstdDecompressor().decompress(raw[16 : 16 + size])
                decoded = msgspec.msgpack.decode(inner)
                for message in decoded["messages"]:
                    with self._lock:
                        self._hear(message, decoded["binaryBufferLengths"])
                if any(message["type"] in _CAMERA for message in decoded["messages"]):
                    self.move()

    def _hear(self, message: dict[str, Any], lengths: list[int]) -> None:
        kind = message["type"]
        if kind == "BackgroundImageMessage":
            if message["rgb_data"] is not None:
                self.jpeg = message["rgb_data"]
                self.images += 1
        elif kind == "NotificationShowMessage":
            self.notifications.append((message["props"]["title"], message["props"]["body"]))
        elif kind == "RegisterCommandMessage":
            self.commands[message["uuid"]] = message["props"]
        elif kind == "RemoveCommandMessage":
            self.commands.pop(message["uuid"], None)
        elif kind == "GuiUpdateMessage":
            self.elements.get(message["uuid"], {}).update(message["updates"])
        elif kind == "GuiRemoveMessage":
            self.elements.pop(message["uuid"], None)
        elif kind.startswith("Gui") and "props" in message:
            self.elements[message["uuid"]] = {**message["props"], "value": message.get("value")}
        elif kind == "GaussianSplatsMessage":
            self.splats = lengths[message["props"]["buffer"]["__binary_index"]] // _SPLAT_BYTES
        elif kind == "SceneNodeUpdateMessage" and "buffer" in message["updates"]:
            self.splats = lengths[message["updates"]["buffer"]["__binary_index"]] // _SPLAT_BYTES
        elif kind in _VERTEX_BYTES:
            length = lengths[message["props"]["points"]["__binary_index"]]
            self.nodes.setdefault(message["name"], []).append(length // _VERTEX_BYTES[kind])
        elif kind == "RemoveSceneNodeMessage" and message["name"] == "/splats":
            self.splats = None
        # A page begins with the first initial camera that it hears of; later ones are for later pages.
        elif kind in _CAMERA and not (message.get("initial") and kind in self._placed):
            self._placed.add(kind)
            field, value = _CAMERA[kind]
            self.camera[field] = message[value]


def _looking(position: np.ndarray, target: np.ndarray, up: np.ndarray) -> tuple[float, ...]:
    """The quaternion, camera to world, of an OpenCV camera that looks at the target."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    m = np.stack([right, np.cross(forward, right), forward], 1)
    # The quaternion is the eigenvector of the largest eigenvalue (Bar-Itzhack 2000).
    k = np.array(
        [
            [m[0, 0] + m[1, 1] + m[2, 2], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
            [0, m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[2, 0] + m[0, 2]],
            [0, 0, m[1, 1] - m[0, 0] - m[2, 2], m[2, 1] + m[1, 2]],
            [0, 0, 0, m[2, 2] - m[0, 0] - m[1, 1]],
        ]
    )
    w, x, y, z = np.linalg.eigh(k, UPLO="U")[1][:, -1]
    return (float(w), float(x), float(y), float(z))


_SPLAT_BYTES = 32
_VERTEX_BYTES = {"PointCloudMessage": 12, "LineSegmentsMessage": 24}  # a point; a line of two
_CAMERA = {
    "SetCameraPositionMessage": ("position", "position"),
    "SetCameraLookAtMessage": ("look_at", "look_at"),
    "SetCameraUpDirectionMessage": ("up_direction", "position"),
    "SetCameraFovMessage": ("fov", "fov"),
}
