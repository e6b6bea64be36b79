"""Weight files: read, compared with the model by name and shape, and only then loaded, whole or not at all."""

from __future__ import annotations

import io
import os
import re
import warnings
import zipfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import h5py
import keras
import ml_dtypes
import numpy as np

from keras_mobilenets.applications import timm_weights
from keras_mobilenets.layers import inline
from keras_mobilenets.utils import user_path

# Layers that a model has only with `include_top=True`, by their canonical name.
_TOP = frozenset({"conv_preds", "classifier", "conv_2", "conv_2_bn"})


@dataclass(frozen=True)
class _Stored:
    """The weights of one layer in a file, by the name of each variable ("0", "1", ... where the file has none)."""

    name: str
    variables: dict[str, Any]  # data sets of HDF5, or arrays


def load_weights(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    skip: Iterable[keras.layers.Layer] = (),
    free: Collection[str] = (),
) -> None:
    """Loads weights into a model by the names and shapes of its primitive layers.

    The file may come from this package or from keras.applications, of Keras 3 or of its predecessors: what counts are
    the layers of the flat view (`inline(model)`), not how they are nested. MobileNetV4 takes timm's checkpoints, too,
    where it was built with `origin="timm"`. Everything is compared first: a file that does not fit leaves the model as
    it was.

    Args:
        model: a functional or sequential model that `inline` can flatten.
        path: a legacy `.h5` file (weights or whole model), a `.weights.h5` or a `.keras` file; of timm a
            `.safetensors` file (read by the package safetensors), or a state dict of `torch.save` (by torch).
        skip: layers of `model` that the file does not hold.
        free: names of layers that stay as they are where the file has them in another shape: heads of other classes.

    Raises:
        ValueError: the file is no weight file, is truncated or corrupt, or does not fit; then the message names the
            layers, the shapes that the model expects and those that the file holds.
        ImportError: it is a checkpoint of PyTorch, and the package that reads it is not installed.

    Warns:
        UserWarning: the file's layers have other names, but the same shapes in the same order; or layers of `free` stay
            as they are.

    Example:

    >>> model = MobileNet((32, 32, 3), alpha=0.25, weights=None)
    >>> model.save_weights("mine.weights.h5")
    >>> load_weights(MobileNet((64, 64, 3), alpha=0.25, weights=None), "mine.weights.h5")
    """
    skipped = {id(layer) for layer in skip}
    layers = [layer for layer in inline(model).layers if layer.weights and id(layer) not in skipped]
    with _opened(path, layers) as stored:
        pairs = _pair(layers, stored, model.name, path, free)
        values = [(variable, _array(data)) for layer, stored in pairs for variable, data in _variables(layer, stored)]
    for variable, value in values:
        variable.assign(value)


@contextmanager
def _opened(path: str | os.PathLike[str], layers: list[keras.layers.Layer]) -> Iterator[list[_Stored]]:
    """Opens a weight file for layers, and turns all that can be wrong with the file into one clear error."""
    path = str(user_path(path))
    if not os.path.isfile(path):
        raise ValueError(f"{path} is not a file. Weights come as .h5, .weights.h5 or .keras, of timm as .safetensors.")
    with open(path, "rb") as file:
        start = file.read(512)
        file.seek(0)
        try:
            if timm_weights.is_checkpoint(path):
                yield [_Stored(*one) for one in timm_weights.stored_layers(path, layers)]
                return
            if start.lstrip().startswith(b"<"):
                raise ValueError(f"{path} is a web page, not a weight file: download it again.")
            if not start.startswith((b"\x89HDF", b"PK")):
                raise ValueError(f"{path} is not a weight file: it is neither HDF5 (.h5) nor a Keras archive (.keras).")
            with h5py.File(_hdf5_part(file, start), "r") as hdf5:
                yield list(_stored_layers(hdf5))
        except (OSError, KeyError, RuntimeError, zipfile.BadZipFile, EOFError) as error:
            raise ValueError(f"{path} is truncated or corrupt: download or copy it again. ({error})") from error


def _hdf5_part(file: IO[bytes], start: bytes) -> IO[bytes]:
    return file if start.startswith(b"\x89HDF") else io.BytesIO(zipfile.ZipFile(file).read("model.weights.h5"))


def _stored_layers(file: h5py.File) -> Iterator[_Stored]:
    """Lists the layers with weights, in the file's order, whatever layout it has."""
    group = file.get("model_weights", file)
    if "layer_names" in group.attrs or "layer_names0" in group.attrs:
        for name in _names(group, "layer_names"):
            yield from _legacy_layer(name, group[name])
        return
    groups: list[tuple[str, h5py.Group]] = []
    file.visititems(lambda path, item: groups.append((path, item)) if path.endswith("vars") else None)
    for path, variables in groups:
        name = variables.attrs.get("name", path.removesuffix("/vars"))
        # Not part of any layer's weights: the optimizer's state, and the seeds of dropout.
        if len(variables) and not path.startswith("optimizer") and "seed_generator" not in path:
            yield _Stored(name, {key: variables[key] for key in sorted(variables, key=int)})


def _legacy_layer(name: str, group: h5py.Group) -> Iterator[_Stored]:
    """A layer of a legacy file; a nested model or composite layer is one entry there, and becomes several here."""
    owners: dict[str, dict[str, h5py.Dataset]] = {}
    for path in _names(group, "weight_names"):
        owner, _, variable = path.rpartition("/")
        variable = variable.partition(":")[0].replace("depthwise_kernel", "kernel")
        owners.setdefault(owner, {})[variable] = group[path]
    for owner, variables in owners.items():
        yield _Stored(name if len(owners) == 1 else owner.rpartition("/")[2], variables)


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """A list of names, which Keras splits over several attributes where it is long."""
    if attribute in group.attrs:
        names = list(group.attrs[attribute])
    else:
        chunks = sum(key.startswith(attribute) for key in group.attrs)
        names = [name for index in range(chunks) for name in group.attrs[f"{attribute}{index}"]]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _canonical(name: str) -> str:
    """One name for what Keras has called by several over the years.

    Example:

    >>> _canonical("expanded_conv_1/expand/BatchNorm"), _canonical("bn1_conv_bn_expand"), _canonical("Logits")
    ('expanded_conv_1_expand_bn', 'block_1_expand_bn', 'classifier')
    """
    name = name.replace("/", "_").lower().replace("batchnorm", "bn")
    # The first MobileNetV2 files: mobl1_conv_expand with bn1_conv_bn_expand, or with the number twice.
    name = re.sub(r"^mobl(\d+)_conv_(?:\d+_)?(expand|depthwise|project)$", r"block_\1_\2", name)
    name = re.sub(r"^bn(\d+)_conv_(?:\d+_)?(?:bn_)?(expand|depthwise|project)$", r"block_\1_\2_bn", name)
    name = re.sub(r"^block_0_", "expanded_conv_", name)
    return "classifier" if name in ("logits", "predictions") else name


def _pair(
    layers: list[keras.layers.Layer],
    stored: list[_Stored],
    model_name: str,
    path: str | os.PathLike[str],
    free: Collection[str],
) -> list[tuple[keras.layers.Layer, _Stored]]:
    """Finds each layer's weights in the file, or says what does not fit."""
    wanted = {_canonical(layer.name): layer for layer in layers}
    found = {_canonical(entry.name): entry for entry in stored}
    if wanted.keys() == found.keys() and len(found) == len(stored):
        pairs = [(layer, found[name]) for name, layer in wanted.items()]
        misfits = [pair for pair in pairs if not _fits(*pair)]
        if any(layer.name not in free for layer, _ in misfits):
            described = [_describe_misfit(*pair) for pair in misfits if pair[0].name not in free]
            raise ValueError(f"{path} does not fit {model_name}: {_some(described)}")
        if misfits:
            names = _some([layer.name for layer, _ in misfits], len(misfits))
            warnings.warn(f"{path} is of other classes: {names} of {model_name} begin anew.", stacklevel=3)
        return [pair for pair in pairs if _fits(*pair)]
    if _same_order(layers, stored):
        pairs = list(zip(layers, stored, strict=True))
        layer, entry = next(pair for pair in pairs if _canonical(pair[0].name) != _canonical(pair[1].name))
        warnings.warn(
            f"{path} names its layers otherwise than {model_name} (first {entry.name!r} for {layer.name!r}); their "
            "number, order and shapes agree, so that they are loaded in order.",
            stacklevel=3,
        )
        return pairs
    missing = [f"{layer.name} {_shapes(layer)}" for name, layer in wanted.items() if name not in found]
    unknown = [f"{entry.name} {_stored_shapes(entry.variables)}" for name, entry in found.items() if name not in wanted]
    raise ValueError(
        f"{path} does not fit {model_name}. Layers with weights in the model: {len(layers)}, in the file: "
        f"{len(stored)}. Only in the model: {_some(missing)}. Only in the file: {_some(unknown)}."
        + _hint(wanted.keys() - found.keys(), found.keys() - wanted.keys())
    )


def _same_order(layers: list[keras.layers.Layer], stored: list[_Stored]) -> bool:
    """Whether everything but the names agrees, and no name that both sides know stands elsewhere."""
    if len(layers) != len(stored) or not all(map(_fits, layers, stored)):
        return False
    wanted, found = ([_canonical(each.name) for each in side] for side in (layers, stored))
    return all(one == another or another not in wanted for one, another in zip(wanted, found, strict=True))


def _hint(missing: set[str], unknown: set[str]) -> str:
    if missing and not unknown and missing <= _TOP:
        return " The file was saved without the top: build with `include_top=False`, or load a file with a top."
    if unknown and not missing and unknown <= _TOP:
        return " The file was saved with the top: build with `include_top=True`, or load a file without a top."
    if any(name.startswith("layers_") for name in unknown):
        return (
            " The file holds no names of layers, as an older Keras wrote it: load it there, and save it with this one."
        )
    return ""


def _some(items: list[str], most: int = 4) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return "; ".join(items[:most]) + more if items else "none"


def _variables(layer: keras.layers.Layer, stored: _Stored) -> list[tuple[Any, h5py.Dataset]]:
    """Pairs the variables of a layer with the file's: by name where the file names them, else in Keras' order."""
    names = [variable.name for variable in layer.weights]
    if set(names) == stored.variables.keys():
        return [(variable, stored.variables[variable.name]) for variable in layer.weights]
    return list(zip(layer.weights, stored.variables.values(), strict=False))  # `_fits` counts them


def _array(data: h5py.Dataset) -> np.ndarray:
    # HDF5 has no bfloat16: Keras writes its two bytes and leaves a note.
    is_bfloat16 = getattr(data, "attrs", {}).get("dtype") == "bfloat16"
    return np.array(data, dtype=ml_dtypes.bfloat16) if is_bfloat16 else np.array(data)


def _fits(layer: keras.layers.Layer, stored: _Stored) -> bool:
    pairs = _variables(layer, stored)
    same_number = len(layer.weights) == len(stored.variables)
    return same_number and all(tuple(variable.shape) == tuple(data.shape) for variable, data in pairs)


def _describe_misfit(layer: keras.layers.Layer, stored: _Stored) -> str:
    found = dict(stored.variables)
    if len(found) == len(layer.weights) and "0" in found:  # the file only counts them, in Keras' order
        found = dict(zip((variable.name for variable in layer.weights), found.values(), strict=True))
    return f"{layer.name} expects {_shapes(layer)}, found {_stored_shapes(found)} as {stored.name!r}"


def _shapes(layer: keras.layers.Layer) -> str:
    return ", ".join(f"{variable.name} {tuple(variable.shape)}" for variable in layer.weights)


def _stored_shapes(variables: dict[str, h5py.Dataset]) -> str:
    return ", ".join(f"{'' if name.isdigit() else name + ' '}{data.shape}" for name, data in variables.items())
