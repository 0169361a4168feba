"""The first stage: photographs, frames of videos and masks, from where they are to the dataset's folder."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from splat.core import DataError, UsageError
from splat.core.files import beside
from splat.data.images import SUFFIXES, decode, read_header
from splat.data.problems import DatasetError
from splat.data.sfm import masks, video
from splat.data.sfm.options import ProcessOptions
from splat.data.sfm.picture import Picture

# What pycolmap's decoder does not know; written again as PNG, which loses nothing.
_FOREIGN = frozenset({".webp", ".jp2"})
_REDUCED = frozenset({"images_2", "images_4", "images_8"})
# EXIF tags of what tells cameras apart: maker, model; lens, focal length, the same in 35 mm.
_BODY, _LENS = (0x010F, 0x0110), (0xA434, 0x920A, 0xA405)
_EXIF_IFD = 0x8769

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Source:
    """A file to take.

    Attributes:
        path: where it is.
        name: what it becomes, relative to images/; for a video the folder of its frames.
        own: the same before blanks and endings were changed, by which masks are named.
    """

    path: Path
    name: str
    own: str


@dataclass
class Inputs:
    """What the user named.

    Attributes:
        photographs, videos: sorted by name.
        masks: the folder with masks that lies beside them, or None.
        in_place: whether the photographs lie in DATA/images already.
    """

    photographs: list[Source] = field(default_factory=list)
    videos: list[Source] = field(default_factory=list)
    masks: Path | None = None
    in_place: bool = False

    def fingerprint(self) -> list[Any]:
        """What changes when a file does: names, sizes and times."""
        files = [(s.name, s.path) for s in (*self.photographs, *self.videos)]
        if self.masks is not None:
            files += [(f"masks/{p.relative_to(self.masks)}", p) for p in sorted(self.masks.rglob("*.png"))]
        return [[name, (stat := path.stat()).st_size, stat.st_mtime_ns] for name, path in files]


def find(inputs: list[Path], data: Path, mask_folder: Path | None = None, chroma_key: bool = False) -> Inputs:
    """Look at what the user named; nothing is decoded or written.

    Raises:
        DataError: a path is missing or holds no photograph and no video.
        UsageError: DATA lies where photographs would be looked for, or masks would be written over.
    """
    found = Inputs(masks=mask_folder)
    for path in inputs:
        prefix = f"{path.stem if path.is_file() else path.resolve().name}/" if len(inputs) > 1 else ""
        if path.is_dir():
            _find_in(path, prefix, data, found)
        elif path.is_file() and path.suffix.lower() in video.SUFFIXES:
            found.videos.append(Source(path, path.stem, path.stem))
        elif path.exists():
            raise DatasetError(
                "no-photographs", path, "neither a folder of photographs nor a video", "give one of these"
            )
        else:
            raise DatasetError("no-folder", path, "no such file or folder", "check the spelling")
    if mask_folder is not None and not mask_folder.is_dir():
        raise DatasetError("no-folder", mask_folder, "no such folder of masks", "check --masks")
    if not found.photographs and not found.videos:
        remedy = "give a folder with photographs (.jpg, .png, ...) or a video (.mp4, .mov, ...)"
        raise DatasetError("no-photographs", inputs[0], "holds neither photographs nor videos", remedy)
    odd = [s for s in found.photographs if s.path.resolve() != (data / "images" / s.name).resolve()]
    if found.in_place and odd:
        raise UsageError(
            f"{odd[0].path}: a name with blanks, or photographs from elsewhere besides those of {data / 'images'}; "
            "name another folder for the dataset, so that copies are made"
        )
    if found.masks is not None and found.masks.resolve() == (data / "masks").resolve():
        if chroma_key:
            raise UsageError(
                f"--chroma-key would write over {found.masks}; move these masks, and name them by --masks"
            )
        found.masks = data / "masks"
    found.photographs, found.videos = _named_once(found.photographs), _named_once(found.videos)
    found.in_place = any(
        s.path.resolve().is_relative_to((data / "images").resolve()) for s in found.photographs
    )
    return found


def _find_in(root: Path, prefix: str, data: Path, found: Inputs) -> None:
    images = root / "images"
    if images.is_dir() and next(_files(images, SUFFIXES | video.SUFFIXES), None) is not None:
        if found.masks is None and (root / "masks").is_dir():
            found.masks = root / "masks"
        root = images
    elif data.resolve().is_relative_to(root.resolve()):
        raise UsageError(
            f"{data}: lies inside the folder of photographs; name another folder for the dataset, or move the "
            f"photographs to {data / 'images'}"
        )
    for path in _files(root, SUFFIXES):
        name = path.relative_to(root).as_posix()
        suffix = path.suffix.lower()
        becomes = f"{name}.png" if suffix in _FOREIGN else name
        found.photographs.append(Source(path, prefix + becomes, prefix + name))
    for path in _files(root, video.SUFFIXES):
        name = prefix + path.relative_to(root).with_suffix("").as_posix()
        found.videos.append(Source(path, name, name))


def _files(root: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and name not in _REDUCED | {"masks"}
        )
        for name in sorted(names):
            if Path(name).suffix.lower() in suffixes and not name.startswith("."):
                yield Path(folder) / name


def _named_once(sources: list[Source]) -> list[Source]:
    """Sorted by name, without what COLMAP's list of pairs cannot hold; of two of one name the later gets a number."""
    taken: Counter[str] = Counter()
    named = []
    for source in sources:
        name = re.sub(r"[\s#]", "_", source.name)
        count, path = taken[name], Path(name)
        taken[name] += 1
        numbered = path.with_stem(f"{path.stem}_{count + 1}").as_posix() if count else name
        named.append(replace(source, name=numbered))
    return sorted(named, key=lambda source: source.name)


def gather(inputs: Inputs, data: Path, options: ProcessOptions, progress: Progress) -> dict[str, Any]:
    """Fill DATA/images and DATA/masks, and DATA/process/masks with where features are looked for.

    What is there already and whole is kept, so that a gathering that was stopped goes on.

    Returns:
        {pictures: [Picture as a dict], skipped: [{name, reason}], same: [[names of one content]]}.

    Raises:
        DataError: fewer than two usable pictures, all pictures the same, a mask that does not fit, a full disk.
    """
    for folder in (data / "images", data / "process" / "masks"):
        folder.mkdir(parents=True, exist_ok=True)
    _check_masks(inputs, options)
    _check_space(inputs, data, options)
    skipped: list[dict[str, str]] = []
    pictures, digests = [], {}
    step = _Steps(progress, len(inputs.photographs), len(inputs.videos))
    pool = ThreadPoolExecutor(2)
    try:
        taken = pool.map(lambda source: _take(source, data, inputs, options), inputs.photographs)
        for source, outcome in zip(inputs.photographs, taken, strict=True):
            step.photograph()
            if isinstance(outcome, DatasetError):
                skipped.append({"name": source.name, "reason": outcome.cause})
            else:
                picture, digests[picture.name] = outcome
                pictures.append(picture)
    finally:
        pool.shutdown(cancel_futures=True)
    for source in inputs.videos:
        folder = data / "images" / source.name
        names = video.extract(source.path, folder, options.frames, step.video())
        for name in names:
            still = Source(folder / name, f"{source.name}/{name}", f"{source.own}/{name}")
            frame = _take(still, data, inputs, options, source.name)
            if isinstance(frame, DatasetError):
                raise frame
            picture, digests[picture.name] = frame
            pictures.append(picture)
    same = _same(digests)
    copies = {name for names in same for name in names[1:]}
    skipped += [{"name": name, "reason": "the same picture as another one"} for name in sorted(copies)]
    distinct = [picture for picture in pictures if picture.name not in copies]
    _check_count(inputs, len(pictures), distinct, skipped, data)
    _remove_strangers(data, {picture.name for picture in distinct}, inputs)
    return {"pictures": [asdict(picture) for picture in distinct], "skipped": skipped, "same": same}


def _check_masks(inputs: Inputs, options: ProcessOptions) -> None:
    """DatasetError where the user names a folder of masks, and none is of a photograph; frames have theirs later."""
    folder = inputs.masks
    if options.masks is None or folder is None or inputs.videos:
        return
    if not any(masks.find(folder, source.own) for source in inputs.photographs):
        cause = f"holds no mask of any of the {len(inputs.photographs)} photographs"
        remedy = (
            f"name them like the photographs, such as {Path(inputs.photographs[0].own).with_suffix('.png')}"
        )
        raise DatasetError("no-masks", folder, cause, remedy)


def _check_count(
    inputs: Inputs, total: int, distinct: list[Picture], skipped: list[dict[str, str]], data: Path
) -> None:
    if len(distinct) >= 2:
        return
    place = (inputs.photographs or inputs.videos)[0].path
    place = place.parent if inputs.photographs else place
    if total > 1:
        cause = f"all {total} pictures are the same"
        remedy = "move between photographs: depth comes from seeing things from several places"
        raise DatasetError("identical", place, cause, remedy)
    if total == 1:
        raise DatasetError(
            "few-views",
            place,
            "a single usable photograph",
            "a scene needs at least 2, better 30, from all sides",
        )
    reason = skipped[0]["reason"] if skipped else "nothing could be read"
    raise DatasetError(
        "no-photographs",
        place,
        f"none of the {len(skipped)} photographs can be used ({reason})",
        "copy them again",
    )


class _Steps:
    """Progress over photographs and videos together: a video counts as much as all of the photographs."""

    def __init__(self, progress: Progress, photographs: int, videos: int) -> None:
        self._progress, self._videos = progress, videos
        self._share = 1000 // (videos + (photographs > 0))
        self._photographs, self._done, self._video = photographs, 0, -1

    def photograph(self) -> None:
        self._done += 1
        self._progress(self._share * self._done // self._photographs, 1000)

    def video(self) -> Progress:
        self._video += 1
        before = self._share * (self._video + (self._photographs > 0))
        return lambda done, total: self._progress(before + self._share * done // max(total, 1), 1000)


def _take(
    source: Source, data: Path, inputs: Inputs, options: ProcessOptions, sequence: str = ""
) -> tuple[Picture, str] | DatasetError:
    """Copy one photograph (frames of videos are there already) with its masks; the picture and the digest of its
    file, or what is wrong with it."""
    target = data / "images" / source.name
    try:
        header = read_header(source.path)
        image, alpha = decode(source.path)  # a damaged file is found here, not in the middle of a run
    except DatasetError as error:
        return error
    digest = hashlib.sha256(source.path.read_bytes()).hexdigest()
    if source.path.resolve() != target.resolve():
        _copy(source.path, target)
    masked = _write_masks(source, image, alpha, data, inputs, options)
    camera = sequence or _camera(source.path, source.name, header.width, header.height)
    if options.cameras != "auto":
        by_folder = {"single": "", "folder": Path(source.name).parent.as_posix(), "image": source.name}
        camera = f"{by_folder[options.cameras]} {header.width}x{header.height}"
    return Picture(source.name, camera, sequence, header.orientation, masked), digest


def _copy(path: Path, target: Path) -> None:
    stat = path.stat()
    if (
        target.is_file()
        and (there := target.stat()).st_mtime_ns == stat.st_mtime_ns
        and (there.st_size == stat.st_size or path.suffix.lower() in _FOREIGN)
    ):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with beside(target) as temporary:
        if path.suffix.lower() in _FOREIGN:
            _as_png(path, temporary)
            os.utime(temporary, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        else:
            shutil.copy2(path, temporary)


def _as_png(path: Path, target: Path) -> None:
    from PIL import Image

    with Image.open(path) as image:
        image.save(target, format="PNG", exif=image.getexif())


def _write_masks(
    source: Source,
    image: np.ndarray,
    alpha: np.ndarray | None,
    data: Path,
    inputs: Inputs,
    options: ProcessOptions,
) -> bool:
    """Write the masks of one photograph; whether features are looked for under one."""
    name, (height, width) = source.name, image.shape[:2]
    ignored: np.ndarray | None = None
    if inputs.masks is not None:
        ignored = masks.user_mask(inputs.masks, source.own, width, height)
    if options.chroma_key is not None:
        pixels = image if image.dtype == np.uint8 else image.astype(np.uint8)
        screen = masks.chroma_mask(pixels, masks.key_colour(options.chroma_key))
        ignored = screen if ignored is None else ignored & screen
    if ignored is not None and inputs.masks != data / "masks":
        _write_mask(data / "masks" / f"{name}.png", ignored)
    if alpha is not None:
        opaque = alpha > 127
        ignored = opaque if ignored is None else ignored & opaque
    if ignored is None:
        return False
    _write_mask(data / "process" / "masks" / f"{name}.png", ignored)
    return True


def _write_mask(path: Path, kept: np.ndarray) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as temporary:
        Image.fromarray(kept.astype(np.uint8) * 255).save(temporary)


def _camera(path: Path, name: str, width: int, height: int) -> str:
    """What pictures of one camera have in common: folder, size, and body, lens and focal length as EXIF has them."""
    from PIL import Image

    with Image.open(path) as image:
        exif = image.getexif() if image.format in ("JPEG", "MPO", "TIFF", "WEBP") else Image.Exif()
        lens = exif.get_ifd(_EXIF_IFD)
    parts = [exif.get(tag) for tag in _BODY] + [lens.get(tag) for tag in _LENS]
    known = " ".join(str(part).strip("\0 ") for part in parts if part is not None)
    return f"{Path(name).parent.as_posix()} {width}x{height} {known}".strip()


def _same(digests: dict[str, str]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for name, digest in digests.items():
        groups.setdefault(digest, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _remove_strangers(data: Path, names: set[str], inputs: Inputs) -> None:
    """Pictures of an earlier run with other inputs are not to be taken for photographs without a pose."""
    if inputs.in_place:
        return
    for path in _files(data / "images", SUFFIXES):
        if path.relative_to(data / "images").as_posix() not in names:
            path.unlink()


def _check_space(inputs: Inputs, data: Path, options: ProcessOptions) -> None:
    """DataError where the disk has no room for the copies and the features."""
    count = len(inputs.photographs) + len(inputs.videos) * (options.frames or 200)
    # A feature is 128 bytes of descriptor and 24 of place; a frame is about a megabyte; matches take less.
    need = count * options.features * 152 + len(inputs.videos) * (options.frames or 200) * 1_000_000
    if not inputs.in_place:
        need += sum(source.path.stat().st_size for source in inputs.photographs)
    free = shutil.disk_usage(data).free
    if free < need:
        raise DataError(
            f"{data}: the disk is too full ({free / 1e6:,.0f} MB free, up to {need / 1e6:,.0f} MB needed); "
            "free some space or name another folder"
        )
