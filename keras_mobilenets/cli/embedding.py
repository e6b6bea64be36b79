"""What `embed` and `search` do; of a `.tflite` file without TensorFlow."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import typer
from PIL import Image

from keras_mobilenets.cli import checks, progress
from keras_mobilenets.cli.errors import errors
from keras_mobilenets.cli.models import PictureModel, open_model
from keras_mobilenets.data.images import BrokenImage, printable, read_image
from keras_mobilenets.data.layout import picture_files
from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.tasks.embedding import Embedding
from keras_mobilenets.utils import atomic_path, require

BATCH_SIZE = 64
DRAWN = 128  # side of a picture in pixels
IMAGE, VECTOR = "image", "embedding"  # names in files


def embed(model: Path, folder: Path, output: Path, *, pixels: PixelScale | None) -> None:
    """Writes the vectors of all pictures in a folder; broken ones are named and left out."""
    if output.suffix == ".parquet":
        require("pyarrow", "beam")
    opened = _opened(model, pixels)
    with progress.counting("pictures") as count:
        paths, vectors = _vectors(opened, picture_files(folder), count)
    _write(output, [os.fsdecode(path) for path in paths], vectors)
    progress.console.print(f"{len(paths):,} vectors of {vectors.shape[1]} numbers in {output}", soft_wrap=True)


def search(
    model: Path,
    known: Path,
    images: Sequence[Path],
    *,
    top: int,
    draw: Path | None,
    as_json: bool,
    pixels: PixelScale | None,
) -> None:
    """Prints the nearest pictures of each picture; broken ones are named, and make the command fail at its end."""
    opened = _opened(model, pixels)
    names, vectors = _named(*_vectors(opened, picture_files(known))) if known.is_dir() else _read(known)
    asked, wanted = _vectors(opened, images)
    if vectors.shape[1] != wanted.shape[1]:
        raise ValueError(f"{known} holds vectors of {vectors.shape[1]} numbers, {model} gives {wanted.shape[1]}")
    cosines, places = nearest(vectors, wanted, min(top, len(names)))
    for path, row, near in zip(asked, places, cosines, strict=True):
        found = [{IMAGE: names[place], "cosine": float(one)} for place, one in zip(row, near, strict=True)]
        if as_json:
            print(json.dumps({IMAGE: str(path), "nearest": found}))
        else:
            print(printable(path), *(f"  {one['cosine']:6.3f}  {printable(one[IMAGE])}" for one in found), sep="\n")
    if draw is not None:
        _draw([[path, *(names[place] for place in row)] for path, row in zip(asked, places, strict=True)], draw)
    if len(asked) < len(images):
        raise typer.Exit(1)


def nearest(vectors: np.ndarray, asked: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The cosines and places of the vectors that are nearest to each that is asked for, by all; of length 1."""
    try:
        import faiss
    except ImportError:  # slower, and as exact
        from sklearn.neighbors import NearestNeighbors

        near = NearestNeighbors(n_neighbors=count, metric="cosine").fit(vectors)
        distances, places = near.kneighbors(asked)
        return 1 - distances, places
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, np.float32))
    cosines, places = index.search(np.ascontiguousarray(asked, np.float32), count)
    return cosines, places


def check_embedding(path: Path, opened: PictureModel) -> None:
    """Refuses a model that gives no vectors."""
    if not isinstance(opened.task, Embedding):
        raise ValueError(f'{path} gives no embedding, which an output of the name "embedding" is: {opened.task.name}')


def _opened(path: Path, pixels: PixelScale | None) -> PictureModel:
    opened = open_model(path, pixels)
    check_embedding(path, opened)
    return opened


def _vectors(
    model: PictureModel, paths: Sequence[Path], count: Callable[[int, int], None] = lambda done, total: None
) -> tuple[list[Path], np.ndarray]:
    """The pictures that are whole, and their vectors."""
    whole, vectors = [], []
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), BATCH_SIZE):
            chosen = paths[start : start + BATCH_SIZE]
            read = [*zip(chosen, pool.map(lambda path: _pixels(model, path), chosen), strict=True)]
            for _, problem in read:
                if isinstance(problem, str):
                    errors.print(f"left out: {problem}", markup=False, soft_wrap=True)
            kept = [(path, picture) for path, picture in read if not isinstance(picture, str)]
            if kept:
                whole += [path for path, _ in kept]
                vectors.append(model.predict(np.stack([picture for _, picture in kept])))
            count(start + len(chosen), len(paths))
    if not whole:
        raise ValueError("None of the pictures can be read")
    return whole, np.concatenate(vectors).astype(np.float32)


def _pixels(model: PictureModel, path: Path) -> np.ndarray | str:
    try:
        return model.read(path)
    except BrokenImage as error:
        return str(error)


def _named(paths: Sequence[Path], vectors: np.ndarray) -> tuple[list[str], np.ndarray]:
    return [os.fsdecode(path) for path in paths], vectors


def _write(output: Path, names: list[str], vectors: np.ndarray) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(output) as temporary:
        if output.suffix == ".npz":
            with open(temporary, "wb") as file:
                arrays: dict[str, Any] = {IMAGE: np.array(names), VECTOR: vectors}
                np.savez(file, **arrays)
            return
        import pyarrow
        from pyarrow import parquet

        column = pyarrow.FixedSizeListArray.from_arrays(vectors.reshape(-1), vectors.shape[1])
        parquet.write_table(pyarrow.table({IMAGE: [printable(name) for name in names], VECTOR: column}), temporary)


def _read(path: Path) -> tuple[list[str], np.ndarray]:
    """What `embed` wrote, whole or, by Beam, in parts.

    Raises:
        ValueError: it is something else.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path) as file:
                return file[IMAGE].tolist(), file[VECTOR]
        parquet = require("pyarrow.parquet", "beam")
        parts = [path] if path.exists() else checks.parts(path)
        table = parquet.read_table(parts).to_pydict()
        return table[IMAGE], np.array(table[VECTOR], np.float32)
    except (KeyError, ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} holds no vectors that `embed` wrote: {error}") from error


def _draw(rows: Sequence[Sequence[Any]], path: Path) -> None:
    """A row of pictures for each that was looked for; grey where a file is gone."""
    width = max(map(len, rows))
    page = np.full((len(rows) * DRAWN, width * DRAWN, 3), 224, np.uint8)
    for down, row in enumerate(rows):
        for right, name in enumerate(row):
            place = page[down * DRAWN : (down + 1) * DRAWN, right * DRAWN : (right + 1) * DRAWN]
            if os.path.isfile(name):
                place[:] = read_image(name, DRAWN)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        Image.fromarray(page).save(temporary, "PNG")
