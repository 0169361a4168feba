"""Reading compressed data and archives with memory bounded by the size of the file itself.

Every function takes `path` to begin its messages with, and raises DataError where the data are damaged, or
promise more than a file of their size could honestly hold.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from splat.core import DataError

# What `size` compressed bytes may become: the entropy of trained parameters keeps real files under 20 times;
# scenes of equal Gaussians reach deflate's 1032 times, and are let through as long as they are small.
_RATIO = 256
_FREE = 64 << 20
# Decompressed at a time.
_PIECE = 1 << 20
# Zstandard's own default: frames that ask their reader for a larger window are refused.
_LARGEST_WINDOW = 1 << 27


def allowance(size: int) -> int:
    """The most bytes that `size` compressed bytes may become."""
    return _FREE + _RATIO * size


def require(path: Path, what: str, needed: int, held: int) -> None:
    """DataError unless `held` bytes are enough for the `needed` ones that the header promises."""
    if needed > held:
        raise DataError(
            f"{path}: cut short or damaged: {what} need {needed:,} bytes, the file has {held:,}; "
            "copy or download it again"
        )


class Inflater:
    """Reads a deflated stream piece by piece: `read(count)` gives that many bytes, or all that are left.

    Args:
        data: the compressed bytes, a whole gzip member (or zlib stream, or raw deflate with `wbits` -15).
    """

    def __init__(self, path: Path, data: bytes | memoryview, wbits: int = 31) -> None:
        self._path = path
        self._data = memoryview(data)
        self._at = 0
        self._inflate = zlib.decompressobj(wbits)
        self._left = allowance(len(data))

    def read(self, count: int) -> bytes:
        """At most `count` bytes; fewer only at the end of the stream."""
        if count > self._left:
            raise DataError(
                f"{self._path}: damaged: it promises {count:,} bytes more, "
                f"too many for a file of {len(self._data):,} bytes"
            )
        parts, wanted = [], count
        try:
            while wanted and not self._inflate.eof:
                pending = self._inflate.unconsumed_tail
                if not pending:
                    pending = bytes(self._data[self._at : self._at + _PIECE])
                    self._at += len(pending)
                    if not pending:
                        raise DataError(
                            f"{self._path}: cut short: the compressed data end early; copy or download it again"
                        )
                part = self._inflate.decompress(pending, wanted)
                parts.append(part)
                wanted -= len(part)
        except zlib.error as error:
            raise DataError(f"{self._path}: damaged: the compressed data cannot be read ({error})") from None
        self._left -= count - wanted
        return b"".join(parts)


def unzstd(path: Path, data: bytes | memoryview, size: int, what: str) -> bytes:
    """The `size` bytes of a zstd frame; DataError where it holds more or fewer."""
    import zstandard

    if size > allowance(len(data)):
        raise DataError(
            f"{path}: damaged: {what} promise {size:,} bytes from {len(data):,} compressed ones, too many"
        )
    reader = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).stream_reader(
        io.BytesIO(data), read_across_frames=True
    )
    parts, wanted = [], size + 1
    try:
        while wanted and (part := reader.read(min(wanted, _PIECE))):
            parts.append(part)
            wanted -= len(part)
    except zstandard.ZstdError as error:
        raise DataError(f"{path}: damaged: {what} cannot be decompressed ({error})") from None
    found = b"".join(parts)
    if len(found) != size:
        more = "more" if len(found) > size else f"{len(found):,}"
        raise DataError(f"{path}: damaged: {what} should decompress to {size:,} bytes, and give {more}")
    return found


def safe_name(path: Path, name: str) -> str:
    """`name` if it names a file inside its archive or folder; DataError for absolute paths, `..` and such."""
    parts = PurePosixPath(name).parts
    if (
        not name
        or not parts
        or PurePosixPath(name).is_absolute()
        or ".." in parts
        or any(c in name for c in "\\:\0")
    ):
        raise DataError(f"{path}: refused: it names a file outside itself: {name[:80]!r}")
    return name


def read_member(path: Path, folder: Path, name: str) -> bytes:
    """The whole file `name` of `folder`, which must be an ordinary file inside it.

    Args:
        path: the file that names it.
    """
    member = folder / safe_name(path, name)
    try:
        inside = member.resolve().is_relative_to(folder.resolve())
        if not inside or not stat.S_ISREG(os.stat(member).st_mode):
            raise DataError(f"{path}: refused: {name[:80]!r} is not an ordinary file inside {folder}")
        return member.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {name[:80]!r} cannot be read ({error.strerror})") from None


class Archive:
    """A zip file whose members can be read whole, all of them together within the file's allowance."""

    def __init__(self, path: Path, file: zipfile.ZipFile, size: int) -> None:
        self._path = path
        self._file = file
        self._left = allowance(size)

    def names(self) -> list[str]:
        """The members that are files, in the archive's order."""
        return [entry.filename for entry in self._file.infolist() if not entry.is_dir()]

    def read(self, name: str) -> bytes:
        """The bytes of the member `name`; DataError where it is absent, damaged or too large."""
        try:
            entry = self._file.getinfo(safe_name(self._path, name))
        except KeyError:
            raise DataError(f"{self._path}: damaged or cut short: it has no {name!r}") from None
        if entry.file_size > self._left:
            raise DataError(
                f"{self._path}: damaged: {name!r} promises {entry.file_size:,} bytes, "
                "too many for an archive of this size"
            )
        self._left -= entry.file_size
        try:
            with self._file.open(entry) as member:
                found = member.read(entry.file_size + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OverflowError) as error:
            raise DataError(f"{self._path}: damaged: {name!r} cannot be read ({error})") from None
        except (RuntimeError, NotImplementedError) as error:  # encrypted, or an unknown compression
            raise DataError(
                f"{self._path}: {name!r} cannot be read ({error}); store it uncompressed"
            ) from None
        if len(found) != entry.file_size:
            raise DataError(f"{self._path}: damaged: {name!r} is not as long as the archive says")
        return found


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """The zip file at `path`; DataError where it is none, or where a member's name leads out of it."""
    try:
        file = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError, EOFError) as error:
        raise DataError(f"{path}: damaged or cut short: not a whole zip file ({error})") from None
    with file:
        for entry in file.infolist():
            safe_name(path, entry.filename)
        yield Archive(path, file, path.stat().st_size)


def pack_archive(members: list[tuple[str, bytes]]) -> bytes:
    """A zip file of `members` (name, bytes), stored and without times, so that equal members give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members:
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()
