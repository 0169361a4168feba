"""How many cores the thread that calls may use, without a word to the others."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch


def use_threads(count: int) -> None:
    """Let torch and the native kernels use `count` threads for what the calling thread does.

    torch keeps the number for each thread (it is OpenMP's), but also as what threads that are yet to come
    begin with: that is put back, so that a trainer started later finds all of the machine.
    """
    if torch.get_num_threads() == count:
        return
    elsewhere: list[int] = []
    _aside(lambda: elsewhere.append(torch.get_num_threads()))
    torch.set_num_threads(count)
    _aside(lambda: torch.set_num_threads(elsewhere[0]))


def _aside(do: Callable[[], None]) -> None:
    thread = threading.Thread(target=do)
    thread.start()
    thread.join()
