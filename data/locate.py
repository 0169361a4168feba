"""Finding the photographs that a program names, wherever they lie now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from splat.data.images import SUFFIXES
from splat.data.problems import DatasetError

_ASIDE = frozenset({"masks", "mask", "depth", "depths", "confidence", "normals"})


class Photographs:
    """The photographs of a dataset, by the path, the file name or the name without extension."""

    def __init__(self, root: Path, folders: Sequence[str] = ("images", "")) -> None:
        """
        Args:
            root: the dataset.
            folders: where to look, relative to the root; the first one with photographs counts. "" is the root
                itself, without its subfolders; the others with theirs.
        """
        self._root, self._folder = root, root / (folders[0] or ".")
        self._files: list[Path] = []
        for name in folders:
            folder = root / name
            found = folder.rglob("*") if name else folder.glob("*")
            files = sorted(file for file in found if _is_photograph(file.relative_to(folder)))
            if files:
                self._folder, self._files = folder, files
                break
        self._by_path = {self._name(file).lower(): file for file in self._files}
        self._by_file, self._by_stem = defaultdict(list), defaultdict(list)
        for file in self._files:
            self._by_file[file.name.lower()].append(file)
            self._by_stem[file.stem.lower()].append(file)

    def find(self, name: str) -> tuple[str, Path]:
        """Name relative to the folder, and file, of the photograph that a program calls `name`.

        The folders in `name`, which may be another machine's, serve to tell photographs of one name apart. A
        photograph that is not there gets the path at which it would be.

        Raises:
            DatasetError: several photographs may be meant.
        """
        wanted = PurePosixPath(name.replace("\\", "/"))
        exact = self._by_path.get(str(wanted).lower())
        if exact is not None:
            return self._name(exact), exact
        # A label such as IMG_1.2 has no extension, only a dot.
        for table, key in (
            (self._by_file, wanted.name),
            (self._by_stem, wanted.name),
            (self._by_stem, wanted.stem),
        ):
            found = table.get(key.lower(), [])
            if len(found) > 1:
                found = [file for file in found if file.parent.name == wanted.parent.name]
                if len(found) != 1:
                    cause = f"{name!r} may be any of several photographs of that name"
                    raise DatasetError("image-ambiguous", self._folder, cause, "give each its own name")
            if found:
                return self._name(found[0]), found[0]
        return str(wanted), self._folder / wanted.name

    def _name(self, file: Path) -> str:
        return file.relative_to(self._folder).as_posix()


def _is_photograph(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not any(
        part.startswith(".") or part.lower() in _ASIDE for part in path.parts
    )
