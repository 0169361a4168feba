"""Decoded photographs: kept within a byte budget, made ahead of time by threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from splat.data.images import Photo


class PhotoCache:
    """The latest used photographs, and a few that are on their way.

    A photograph that fails to decode raises from ``get``, whichever thread decoded it.
    """

    def __init__(self, load: Callable[[int], Photo], budget: int, workers: int = 2, ahead: int = 8) -> None:
        """
        Args:
            load: makes photograph i; called from several threads, never twice at a time for one i.
            budget: bytes of finished photographs to keep; the latest one is always kept.
            workers: threads that decode ahead.
            ahead: photographs that may be decoded ahead at a time.
        """
        self._load, self._budget, self._ahead = load, budget, ahead
        self._photos: OrderedDict[int, Photo] = OrderedDict()
        self._bytes = 0
        self._pending: dict[int, Future[Photo]] = {}
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="photo")
        self._closed = False

    @property
    def nbytes(self) -> int:
        """Bytes of the photographs that are kept now."""
        return self._bytes

    def get(self, index: int) -> Photo:
        """Photograph `index`, from the cache, from the thread that is making it, or made here and now."""
        with self._lock:
            photo = self._photos.get(index)
            if photo is not None:
                self._photos.move_to_end(index)
                return photo
            future = self._pending.get(index)
            # One that waits in the queue is taken back: decoding it here is sooner.
            here = future is None or future.cancel()
            if here:
                self._pending[index] = future = Future()
                future.set_running_or_notify_cancel()
        assert future is not None
        if here:
            try:
                future.set_result(self._loaded(index))
            except BaseException as error:
                future.set_exception(error)
        try:
            return future.result()
        finally:
            with self._lock:
                if self._pending.get(index) is future:  # it failed; the next call tries again
                    del self._pending[index]

    def prefetch(self, indices: Iterable[int]) -> None:
        """Start making the first few of `indices` that are not at hand; returns at once.

        A failure is kept until ``get`` asks for that photograph, and raised there.
        """
        with self._lock:
            free = self._ahead - sum(not future.done() for future in self._pending.values())
            for index in indices:
                if self._closed or free <= 0:
                    return
                if index not in self._photos and index not in self._pending:
                    self._pending[index] = self._pool.submit(self._loaded, index)
                    free -= 1

    def close(self) -> None:
        """Drop what waits, wait for what runs, forget the photographs."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            self._pending.clear()
            self._photos.clear()
            self._bytes = 0

    def _loaded(self, index: int) -> Photo:
        photo = self._load(index)
        with self._lock:
            self._pending.pop(index, None)
            if not self._closed and index not in self._photos:
                self._photos[index] = photo
                self._bytes += photo.nbytes
                while self._bytes > self._budget and len(self._photos) > 1:
                    _, old = self._photos.popitem(last=False)
                    self._bytes -= old.nbytes
        return photo
