"""Data in a folder: a file for each row, .npy or an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from irshap.datasets.base import Source, Wanted, sampled_digest
from irshap.datasets.files import StoredArray
from irshap.errors import UserError
from irshap.extras import optional
from irshap.runtime.arrays import Array, Arrays

__all__ = ["IMAGES", "Folder", "Pixels"]

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}

_LOOKED_AT = 1024
"""How many files a folder's digest reads."""


@dataclass(frozen=True)
class Pixels:
    """How pixels from 0 to 255 become what a model takes: (scale · pixel - mean) / std, channel by channel.

    Attributes:
        scale: None: pixels stay uint8.
        mean, std: one number, or one for each channel.
    """

    scale: float | None = None
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)

    def of(self, image: Array) -> Array:
        """An image [height, width, channels] of uint8, as float32 or as it is."""
        if self.scale is None:
            return image
        scaled = image.astype(np.float32) * np.float32(self.scale)
        return (scaled - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)


class Folder(Source):
    """The files of a folder in the order of their names, each a row of the only input.

    Raises:
        UserError: there is none, they are of several kinds, or the model takes several inputs.
    """

    def __init__(self, path: Path, wanted: Wanted, pixels: Pixels | None = None) -> None:
        self.path, self.where, self._pixels = path, str(path), pixels or Pixels()
        if wanted.only is None:
            mend = f"write an .npz or Parquet file with {', '.join(wanted.names)}"
            raise UserError("a folder, but the model takes several inputs", where=str(path), mend=mend)
        self._input, self._shape = wanted.only, wanted.shapes[wanted.only]
        kinds = (".npy", *IMAGES)
        self._files = sorted(f.name for f in path.iterdir() if f.suffix.lower() in kinds and f.is_file())
        self.rows = len(self._files)
        if not self._files:
            raise UserError(
                "has no .npy and no images", where=str(path), mend=f"give files {', '.join(kinds)}"
            )
        arrays = [name for name in self._files if name.lower().endswith(".npy")]
        if arrays and len(arrays) < len(self._files):
            raise UserError("has both .npy and images", where=str(path), mend="keep them in two folders")
        if not arrays:
            optional("PIL.Image", "pillow", "images", "reading images", str(path))
            self._channels = _channels(self._shape, self.where)

    def digest(self) -> str:
        """Of all names and sizes, how pixels are read, and the content of up to 1024 files."""
        sizes = [(name, (self.path / name).stat().st_size) for name in self._files]
        found = sha256(repr((sizes, self._pixels)).encode())
        for name in self._files[:: -(-len(self._files) // _LOOKED_AT)]:
            found.update(sampled_digest(self.path / name).encode())
        return found.hexdigest()

    def read(self, start: int, stop: int) -> Arrays:
        """These files."""
        rows = [self._row(self.path / name) for name in self._files[start:stop]]
        for name, row in zip(self._files[start:stop], rows, strict=True):
            if row.shape != rows[0].shape or row.dtype != rows[0].dtype:
                kinds = [f"{array.dtype} {list(array.shape)}" for array in (row, rows[0])]
                what = f"is {kinds[0]}, and {self._files[start]} {kinds[1]}"
                raise UserError(
                    what, where=str(self.path / name), mend="bring all files to one size and type"
                )
        return {self._input: np.stack(rows)}

    def labels(self, start: int, stop: int) -> list[str]:
        """The names of these files."""
        return self._files[start:stop]

    def _row(self, path: Path) -> Array:
        if path.suffix.lower() == ".npy":
            array = StoredArray.of(path)
            return array.read(0, array.shape[0])
        axis, count = self._channels
        image = _decoded(path, CHANNELS[count])
        wanted = [size for i, size in enumerate(self._shape) if i != axis]
        if any(w not in (None, size) for w, size in zip(wanted, image.shape[:2], strict=True)):
            height, width = image.shape[:2]
            what = f"has {height} x {width} pixels, the model takes {wanted[0]} x {wanted[1]}"
            raise UserError(what, where=str(path), mend="resize it as in training")
        found = self._pixels.of(image)
        return found[..., 0] if axis is None else np.moveaxis(found, 2, axis)


def _channels(shape: Sequence[int | None], where: str) -> tuple[int | None, int]:
    """Which axis of a row counts channels, and how many there are."""
    if len(shape) == 2:
        return None, 1
    if len(shape) == 3:
        for axis in (0, 2):
            if (count := shape[axis]) in CHANNELS:
                return axis, int(count or 1)
    what = f"holds images, and a row of the model is {list(shape)}"
    mend = "images fit [H, W], [C, H, W] and [H, W, C] of 1, 3 or 4 channels"
    raise UserError(what, where=where, mend=mend)


def _decoded(path: Path, mode: str) -> Array:
    """An image as uint8 [height, width, channels]."""
    images: Any = optional("PIL.Image", "pillow", "images", "reading images", str(path))
    try:
        with images.open(path) as image:
            array = np.asarray(image.convert(mode))
    except FileNotFoundError:
        raise UserError("no such file", where=str(path)) from None
    except Exception as error:  # pillow's decoders raise errors of many kinds
        text = (str(error).splitlines() or [type(error).__name__])[0]
        what = f"is no image that can be read: {text}"
        raise UserError(what, where=str(path), mend="remove it from the folder, or save it again") from None
    return array if array.ndim == 3 else array[..., None]
