"""MobileNetV4's checkpoints as timm writes them: tensors of PyTorch by timm's names, as layers of Keras by ours."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mobilenets.layers import BatchNormalization
from keras_mobilenets.utils import require, user_path

EPSILON = 1e-5
MOMENTUM = 0.9
"""PyTorch's own, which counts the other way round."""

_AROUND = {
    "conv_stem": "conv",
    "bn1": "conv_bn",
    "conv_head": "conv_2",
    "norm_head": "conv_2_bn",
    "classifier": "predictions",
}
_IN_BLOCK = {
    "conv": "conv",
    "conv_exp": "expand",
    "conv_pwl": "project",
    "bn2": "project_bn",
    "norm": "bn",
    "layer_scale": "layer_scale",
    **{
        f"{theirs}.{part}": ours + suffix
        for theirs, ours in {
            "dw_start": "start_depthwise",
            "pw_exp": "expand",
            "dw_mid": "depthwise",
            "pw_proj": "project",
        }.items()
        for part, suffix in {"conv": "", "bn": "_bn"}.items()
    },
    **{f"attn.{part}.proj": part for part in ("query", "key", "value", "output")},
    **{f"attn.{part}.down_conv": f"{part}_depthwise" for part in ("key", "value")},
    **{f"attn.{part}.norm": f"{part}_depthwise_bn" for part in ("key", "value")},
}
_OF_NORMALIZATION = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def is_checkpoint(path: str | os.PathLike[str] | None) -> bool:
    """Whether a file is one of PyTorch's or safetensors', by its content."""
    path = user_path(path or "")
    return path.is_file() and (_is_safetensors(path) or _is_of_torch(path))


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        length, bracket = int.from_bytes(file.read(8), "little"), file.read(1)
    return bracket == b"{" and length < path.stat().st_size


def _is_of_torch(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return file.read(2) == b"\x80\x02"  # a pickle, as PyTorch wrote before 1.6
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("data.pkl") for name in archive.namelist())


def stored_layers(path: str, layers: list[keras.layers.Layer]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """The layers of a checkpoint, by this package's names, each with its variables in Keras' layout.

    Args:
        path: of a `.safetensors` file, or of one that `torch.save` wrote: the `state_dict`, or a dictionary with one.
        layers: those that get the weights.

    Raises:
        ValueError: it is of another network, or the layers do not compute as timm's do.
        ImportError: the package that reads it is not installed.
    """
    try:
        tensors = _tensors(path)
    except ImportError:
        raise
    except Exception as error:  # each reader has errors of its own
        raise ValueError(f"{path} is truncated or corrupt: download or copy it again. ({error})") from error
    blocks = sorted({tuple(map(int, match.groups())) for key in tensors if (match := re.match(_BLOCK, key))})
    if not blocks or "conv_stem.weight" not in tensors:
        raise ValueError(f"{path} is not a MobileNetV4 of timm. It begins with {', '.join(list(tensors)[:3])}.")
    _check_origin(path, layers)
    found: dict[str, dict[str, np.ndarray]] = {}
    for key, value in tensors.items():
        place, _, variable = key.rpartition(".")
        if variable != "num_batches_tracked":
            name = _OF_NORMALIZATION[variable] if f"{place}.running_mean" in tensors else variable
            found.setdefault(_name(place, blocks, tensors), {})[name.replace("weight", "kernel")] = _turned(
                value, place
            )
    yield from found.items()


_BLOCK = r"blocks\.(\d+)\.(\d+)\."


def _tensors(path: str) -> Mapping[str, np.ndarray]:
    if _is_safetensors(Path(path)):
        return require("safetensors.numpy", extra="torch").load_file(path)
    torch = require("torch", extra="torch")
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict_ema", "state_dict", "model"):
        loaded = loaded.get(key, loaded)
    return {key.removeprefix("module."): value.float().numpy() for key, value in loaded.items()}


def _name(place: str, blocks: list[tuple[int, ...]], tensors: Mapping[str, Any]) -> str:
    """The layer's name here; one that is nowhere here keeps its own, for the message."""
    found = re.match(_BLOCK, f"{place}.")
    if found is None:
        return _AROUND.get(place, place)
    part, number = place[found.end() :], blocks.index(tuple(map(int, found.groups())))
    if part == "bn1":
        ours = "expand_bn" if f"{found.group()}conv_exp.weight" in tensors else "conv_bn"
    else:
        ours = _IN_BLOCK.get(part, part)
    if number < len(blocks) - 1:
        return f"block_{number}_{ours}"
    return ours.replace("conv", "conv_1")  # behind the last block


def _turned(value: np.ndarray, place: str) -> np.ndarray:
    """A kernel in Keras' layout, whose output channels come last, and in a depthwise one before the multiplier."""
    if value.ndim == 4:
        return value.transpose((2, 3, 0, 1) if re.search(r"dw_|down_conv", place) else (2, 3, 1, 0))
    return value.T


def _check_origin(path: str, layers: list[keras.layers.Layer]) -> None:
    wrong = [layer.name for layer in layers if _computes_otherwise(layer)]
    if wrong:
        raise ValueError(
            f"{path} is a checkpoint of timm, and {wrong[0]} computes otherwise than timm: strided convolutions are "
            f"padded by half a kernel on each side there, and normalizations have an epsilon of {EPSILON}. Build the "
            "model with origin='timm'."
        )


def _computes_otherwise(layer: Any) -> bool:
    if isinstance(layer, BatchNormalization):
        return layer.epsilon != EPSILON
    is_strided = max(getattr(layer, "strides", (1,))) > 1 and max(layer.kernel_size) > 1
    return is_strided and layer.padding != "valid"
