"""What a model is quantized for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np

from keras_mobilenets.arguments import check_choice, check_integers
from keras_mobilenets.quantization.observers import Observer, get_observer

UNFUSED_HARD_SWISH = ("xnnpack", "edgetpu")
"""Targets that have no integer operation for hard-swish."""
TARGETS = (*UNFUSED_HARD_SWISH, "tflite-micro", "npu")

Ends = tuple[float | tuple[float, ...], float | tuple[float, ...]]
InputRange = Ends | dict[str, Ends | None] | None


@dataclass(frozen=True)
class Settings:
    """What `quantize_model` was asked for; its docstring says what each means.

    Attributes:
        unsigned: whether the integers of feature maps are uint8, as in a file that `from_tflite` read: the same grids,
            on which halves are rounded away from another 0.
    """

    input_range: InputRange = None
    weight_bits: int = 8
    activation_bits: int = 8
    symmetric: bool = False
    observer: str | Observer = "moving_average"
    target: str = "xnnpack"
    unsigned: bool = False

    def __post_init__(self):
        check_target(self.target)
        given = self.input_range
        for ends in given.values() if isinstance(given, dict) else [given]:
            _check_ends(ends)
        get_observer(self.observer)
        check_integers("[2, 8]", weight_bits=self.weight_bits)
        check_integers("[2, 16]", activation_bits=self.activation_bits)

    @property
    def unfused_hard_swish(self) -> bool:
        """Whether a hard-swish is computed, and rounded, as an addition and a product."""
        return self.target in UNFUSED_HARD_SWISH

    def get_config(self) -> dict[str, Any]:
        named = isinstance(self.observer, str)
        return {
            **asdict(self),
            "observer": self.observer if named else keras.saving.serialize_keras_object(self.observer),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Settings:
        """Settings from `get_config`, which a file may have given lists in place of tuples."""
        given, observer = config["input_range"], config["observer"]
        if isinstance(given, dict):
            given = {name: ends and _ends(ends) for name, ends in given.items()}
        elif given is not None:
            given = _ends(given)
        named = isinstance(observer, str)
        return cls(**{**config, "input_range": given, "observer": observer if named else get_observer(observer)})


def _check_ends(ends: Any) -> None:
    """Refuses what is no range of pixels."""
    if ends is None:
        return
    values = np.broadcast_arrays(*(np.asarray(end, float) for end in ends)) if len(ends) == 2 else []
    if len(values) != 2 or not np.isfinite(values).all() or np.any(values[0] == values[1]):
        raise ValueError(
            "`input_range` must be (low, high), finite and unlike: what pixels 0 and 255 are. "
            f"Received: input_range={ends}"
        )


def _ends(given: Any) -> Ends:
    low, high = (tuple(end) if isinstance(end, list | tuple) else end for end in given)
    return low, high


def check_target(target: str) -> None:
    """Raises a ValueError if there is no such target."""
    check_choice(TARGETS, target=target)
