"""Which data a name means: an image folder or a data set of TensorFlow Datasets; told in milliseconds."""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path

from keras_mobilenets.arguments import check_integers, check_sizes

BUNDLED, SCATTERED = "digits", "scattered_digits"
ANNOTATED = (".json", ".yaml", ".yml", ".csv")  # files that say where the boxes in pictures are
CUTS = ("auto", "none", "crop", "crop_flip")
EXTRAS = ("rand_augment", "random_erasing", "mix_up", "cut_mix")
BOX_EXTRAS = ("crop", "zoom_out", "flip", "colour")
# What is written is no longer itself in a mirror. All others are flipped, as photographs are.
UNFLIPPED = ("digits", "mnist", "svhn", "omniglot", "cmaterdb")
PHOTO_AREA = 0.35  # least share of a photograph that a random crop keeps: light, as small models ask (V1 paper)
THUMBNAIL_SHIFT = 1 / 16  # of the side: 2 of 32 pixels
STRETCH = 4 / 3  # a crop is up to this much wider or higher than the model's proportions, as in Inception


def known_datasets() -> list[str]:
    """The names of the data sets that TensorFlow Datasets and this package offer, sorted.

    Read off the files of the installed TensorFlow Datasets: its own `tfds.list_builders()` imports TensorFlow and
    every one of its 400 modules first. `load` takes any name that `tfds.builder` knows, on this list or not.
    """
    names = {BUNDLED, SCATTERED}
    spec = importlib.util.find_spec("tensorflow_datasets")
    for root in (spec.submodule_search_locations or []) if spec else []:
        names.update(path.stem for path in Path(root, "url_checksums").glob("*.txt"))
        names.update(path.parent.name for path in Path(root, "datasets").glob("*/__init__.py"))
        names.update(path.parent.name for path in Path(root, "image_classification").glob("*/__init__.py"))
    return sorted(names)


def is_folder(data: str | os.PathLike[str], files: tuple[str, ...] = ()) -> bool:
    """Whether `data` means an image folder (True) or a data set (False): its name, or where TFDS prepared it.

    Args:
        data: what the user wrote.
        files: endings of files that stand for their folder.

    Raises:
        ValueError: it is neither; the message names the nearest data sets.
    """
    text = os.path.expanduser(os.fspath(data))  # a `Path` would make a name of ./name
    if os.path.isdir(text):
        return not os.path.isfile(os.path.join(text, "dataset_info.json"))
    if os.path.exists(text) and text.lower().endswith(files or "/"):
        return True
    if os.path.exists(text):
        raise ValueError(f"`data` must be a folder or the name of a data set. Received a file: {text}")
    if re.fullmatch(r"\w+(/\w+)?(:[\d.*]+)?", text) and _is_builder(text):
        return False
    written = os.fspath(data)  # a path of "./" has lost it
    if isinstance(data, os.PathLike) or written.startswith(".") or os.sep in written:
        raise ValueError(f"There is no folder {written}")
    near = difflib.get_close_matches(text, known_datasets(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "see `keras-mobilenets list datasets`"
    raise ValueError(f"`data` is neither a folder nor a data set of TensorFlow Datasets: {text!r}; {hint}")


def augmentations(augment: str | Sequence[str]) -> tuple[str, ...]:
    """The augmentations of `load`, the way of cutting first.

    Raises:
        ValueError: an unknown name, or more than one way of cutting.
    """
    asked = (augment,) if isinstance(augment, str) else tuple(augment)
    strange = [name for name in asked if name not in CUTS + EXTRAS]
    if strange:
        raise ValueError(f"`augment` must be of {', '.join(CUTS + EXTRAS)}. Received: augment={strange[0]!r}")
    cuts = [name for name in CUTS if name in asked] or ["auto"]
    if len(cuts) > 1:
        raise ValueError(f"`augment` must have at most one of {', '.join(CUTS)}. Received: augment={asked}")
    return (cuts[0], *(name for name in EXTRAS if name in asked))


def box_augmentations(augment: str | Sequence[str]) -> tuple[str, ...]:
    """The augmentations of `load_detection`.

    Raises:
        ValueError: an unknown name, or something beside "auto" or "none".
    """
    asked = (augment,) if isinstance(augment, str) else tuple(augment)
    known = ("auto", "none", *BOX_EXTRAS)
    strange = [name for name in asked if name not in known]
    if strange or not asked:
        raise ValueError(f"`augment` must be of {', '.join(known)}. Received: augment={(strange or [''])[0]!r}")
    if len(asked) > 1 and {"auto", "none"} & set(asked):
        raise ValueError(f"`augment` must be one of auto and none, or of the others. Received: augment={asked}")
    return asked


def is_written(name: str) -> bool:
    """Whether a data set's name says that something is read in its pictures."""
    return any(word in name for word in UNFLIPPED)


def mask_augmentations(augment: str | Sequence[str]) -> tuple[str, ...]:
    """The one augmentation of `load_segmentation`.

    Raises:
        ValueError: it is none that masks follow.
    """
    asked = (augment,) if isinstance(augment, str) else tuple(augment)
    if len(asked) != 1 or asked[0] not in CUTS:
        raise ValueError(
            f"`augment` must be one of {', '.join(CUTS)}, which masks follow. Received: augment={augment!r}"
        )
    return asked


def decided(augment: tuple[str, ...], name: str) -> tuple[str, ...]:
    """The augmentations, with "auto" decided for a data set of this name."""
    cut, *extras = augment
    if cut == "auto":
        cut = "crop" if is_written(name) else "crop_flip"
    return (cut, *extras)


def check_arguments(image_size: int | tuple[int, int] | None, batch_size: int) -> None:
    """Refuses sizes of pictures and batches that are not positive."""
    if image_size is not None:
        check_sizes(image_size=image_size)
    check_integers("(0, inf)", batch_size=batch_size)


def _is_builder(name: str) -> bool:
    plain = re.split("[/:]", name)[0]
    if plain in known_datasets():
        return True
    import tensorflow_datasets as tfds  # a data set that its user registered or prepared, or one of a rare module

    try:
        tfds.builder(name)
    except (tfds.core.DatasetNotFoundError, ImportError):
        return False
    return True
