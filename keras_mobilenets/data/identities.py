"""Pictures of identities: those that are held out are of others than those that are trained on."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_mobilenets.data import names
from keras_mobilenets.data.folder import (
    ImageFolder,
    Photos,
    check_scan_arguments,
    count_broken,
    draw,
    read_files,
    scan_folder,
)
from keras_mobilenets.data.images import printable
from keras_mobilenets.data.layout import class_paths, files_below, find_layout
from keras_mobilenets.utils import user_path

if TYPE_CHECKING:
    from keras_mobilenets.data.load import Found, ImageData

HELD_OUT = 0.25  # share of the identities
UNKNOWN = -1  # label of pictures that nobody said anything of
FEWEST = 2  # identities to train on, and to hold out
MIXING = ("mix_up", "cut_mix")


def load_identities(
    data: Any = names.BUNDLED,
    *,
    image_size: int | tuple[int, int] | None = None,
    batch_size: int = 32,
    seed: int = 0,
    augment: str | Sequence[str] = "auto",
    validation_split: float = HELD_OUT,
    preprocess: Callable[[Any], Any] | None = None,
    **options: Any,
) -> ImageData:
    """Loads pictures to learn an embedding from: whole identities are held out, and those of one come two by two.

    Held-out pictures are seen whole, stretched to `image_size`, as MediaPipe shows them to a model.

    Args:
        data: as of `load`: a folder with one sub-folder per identity, a data set, or a `tf.data.Dataset`. Splits of a
            folder and a pair of datasets stay as they are, and may be of different identities. Or a folder of pictures
            alone, of which nobody knows the identities: their label is -1, and a teacher's vectors can be learned.
        image_size: as of `load`.
        batch_size: of it every other picture has one of its identity beside it.
        seed: as of `load`.
        augment: as of `load`, without what mixes pictures.
        validation_split: share of the identities that is held out, at least two of them.
        preprocess: as of `load`.
        **options: class_names, on_error, data_dir and progress as of `load`.

    Returns:
        An `ImageData`; its `class_names` are all identities.

    Raises:
        ValueError: as of `load`, or there are too few identities.

    Example:

    >>> data = load_identities("faces", image_size=128)  # doctest: +SKIP
    """
    from keras_mobilenets.data.load import find, made

    names.check_arguments(image_size, batch_size)
    wanted = augmentations(augment)
    found = find(data, scan=scan_identities, validation_split=validation_split, seed=seed, **options)
    is_path = isinstance(data, str | os.PathLike)
    if not (names.is_folder(data) if is_path else isinstance(data, tuple | list) and len(data) > 1):
        found = _apart(found, validation_split, seed)
    found = found._replace(train=dataclasses.replace(found.train, two_by_two=bool(found.class_names)))
    return made(found, image_size, batch_size, seed, wanted, preprocess, crop=False)


def scan_identities(
    folder: str | os.PathLike[str],
    *,
    validation_split: float = HELD_OUT,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
    **options: Any,
) -> ImageFolder:
    """Lists the pictures of a folder that has one sub-folder per identity; as `scan_folder`, but holds out identities.

    Of a folder without such sub-folders all pictures have the label -1, and single ones are held out.

    Args:
        folder: the folder; where it has splits, these may be of different identities.
        validation_split: share of the identities that is held out, if the folder has no split of its own.
        seed: of that draw.
        class_names: not looked at: a model that gives an embedding knows no identities.
        **options: on_error and progress as of `scan_folder`.

    Returns:
        An `ImageFolder`; its `class_names` are all identities.

    Raises:
        ValueError: as of `scan_folder`, or there are too few identities.
    """
    if _is_unlabelled(folder):
        return _scan_unlabelled(folder, validation_split, seed, **options)
    layout = find_layout(folder)
    if layout.val is not None:
        known = tuple(dict.fromkeys([*layout.class_names, *class_paths(layout.val)]))
        return scan_folder(folder, class_names=known, seed=seed, **options)
    found = scan_folder(folder, seed=seed, **options)
    everything = _joined(found.train, found.val)
    held = np.isin(everything.labels, _held_out(everything.labels, validation_split, seed))
    train, val = (everything.take(np.flatnonzero(one)) for one in (~held, held))
    return ImageFolder(found.class_names, train, val, found.broken)


def find_identities(folder: str | os.PathLike[str]) -> None:
    """Looks whether a folder may hold identities, or pictures that nobody said anything of.

    Raises:
        ValueError: it holds neither.
    """
    if not _is_unlabelled(folder):
        find_layout(folder)


def _is_unlabelled(folder: str | os.PathLike[str]) -> bool:
    """Whether pictures lie in it that are in no sub-folders of identities."""
    root = user_path(folder)
    inside = list(class_paths(root).values()) if root.is_dir() else []
    return bool(files_below(root)) and len(inside) < 2 and not any(class_paths(one) for one in inside)


def _scan_unlabelled(
    folder: str | os.PathLike[str],
    validation_split: float,
    seed: int,
    on_error: str = "skip",
    progress: Callable[[int, int], None] | None = None,
) -> ImageFolder:
    check_scan_arguments(validation_split, on_error)
    broken: list[str] = []
    photos = read_files([(str(path), UNKNOWN) for path in files_below(user_path(folder))], broken, progress)
    if broken and on_error == "raise":
        raise ValueError(count_broken(broken))
    if len(photos) < 2:
        hint = f". {count_broken(broken)}" if broken else ""
        raise ValueError(f"{printable(folder)} must hold at least two readable pictures{hint}")
    return ImageFolder((), *draw(photos, validation_split, seed), tuple(broken))


def augmentations(augment: str | Sequence[str]) -> tuple[str, ...]:
    """The augmentations of `load`, without those that mix pictures.

    Raises:
        ValueError: an unknown name.
    """
    found = names.augmentations(augment)
    if mixing := [one for one in found if one in MIXING]:
        raise ValueError(f"`augment` must not mix pictures of different identities. Received: augment={mixing[0]!r}")
    return found


def _joined(one: Photos, other: Photos) -> Photos:
    labels, plain = (np.concatenate(both) for both in ((one.labels, other.labels), (one.plain, other.plain)))
    order = np.argsort(labels, kind="stable")
    return Photos((*one.paths, *other.paths), labels, plain).take(order)


def _held_out(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The numbers of the identities to hold out; those with a single picture, which nothing can be near to, are not."""
    numbers, counts = np.unique(labels, return_counts=True)
    several = np.random.default_rng(seed).permutation(numbers[counts > 1])
    held = several[: max(math.ceil(share * len(numbers)), FEWEST)]
    if len(held) < FEWEST or len(numbers) - len(held) < FEWEST:
        raise ValueError(
            f"There must be at least {FEWEST} identities to train on and {FEWEST} with several pictures to hold out. "
            f"Received: {len(numbers)} identities, {len(several)} of them with several pictures"
        )
    return held


def _apart(found: Found, share: float, seed: int) -> Found:
    """Both splits together, split by identity."""
    import tensorflow as tf

    examples = found.train.examples.concatenate(found.val.examples)
    labels = np.array([int(label) for label in examples.map(lambda item, label, plain: label)], np.int64)
    held = _held_out(labels, share, seed)

    def is_held(item: Any, label: tf.Tensor, plain: Any) -> tf.Tensor:
        return tf.reduce_any(tf.cast(label, tf.int64) == held)

    def source(part: tf.data.Dataset, count: int) -> Any:
        most = found.train.shuffle_buffer + found.val.shuffle_buffer
        return dataclasses.replace(found.train, examples=part, count=count, shuffle_buffer=min(count, most))

    train = source(examples.filter(lambda *one: ~is_held(*one)), int(np.sum(~np.isin(labels, held))))
    return found._replace(train=train, val=source(examples.filter(is_held), int(np.sum(np.isin(labels, held)))))
