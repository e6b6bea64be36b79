"""The steps of which a MobileNet consists, in a file and in Keras alike, and how the ones are found in the others.

Converters write the same arithmetic in many ways. Here is one: a kernel with its clamp, a hard-swish, a gate, a sum, a
product, a mean. What only moves values is no step, nor is a mean of one pixel, nor a factor that later kernels undo.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

KERNELS = ("convolution", "depthwise")
INVISIBLE = ("scale", "front")  # a constant changes what a value, or an image, is measured in, not which value it is
SIX = 6.0
TOLERANCE = 1.02  # of 6 and of 0: one step of 256


class Foreign(Exception):
    """Why a graph is not one of ours."""


@dataclass(eq=False)
class Step:
    """One step of a network.

    Attributes:
        kind: "convolution" (or a dense layer: a 1x1 convolution of one pixel), "depthwise", "addition", "product",
            "mean", "hard_sigmoid", "hard_swish", "concatenation", "resize", "softmax", "sigmoid"; in files "scale" by
            a constant, too, "front" for a constant factor or sum of an image, and "shift" while they are being read.
        sources: the steps that it reads; None for the image.
        written: of a hard-swish that a file has in several operations: what the last of them reads.
        shape: of the kernel in Keras' order, without leading sizes of 1.
        strides, dilation, padding: of a kernel of more than one pixel; padding is (top, bottom, left, right).
        activation: "NONE", "RELU" or "RELU6", as it is written down.
        operator, tensor: of the file: what does it, and what holds the result; None in a Keras model.
        constant: what is added or multiplied.
        offset: what the file's bias has too much.
        factor: how many times larger than in Keras the file computes the result.
        layer, norm, names: of the Keras model: the layer, the normalization behind it, all layers whose value it is.
    """

    kind: str
    sources: list[Step | None]
    written: list[Step | None] = field(default_factory=list, repr=False)
    shape: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    activation: str = "NONE"
    operator: Any = field(default=None, repr=False)
    tensor: Any = field(default=None, repr=False)
    constant: float = 0.0
    offset: float = 0.0
    factor: float = 1.0
    layer: Any = field(default=None, repr=False)
    norm: Any = field(default=None, repr=False)
    names: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        details = {
            "strides": (self.strides, (1, 1)),
            "dilation": (self.dilation, (1, 1)),
            "padding": (self.padding, ()),
        }
        parts = [" x ".join(map(str, self.shape))]
        parts += [f"{name} {value}" for name, (value, usual) in details.items() if value not in ((), usual)]
        parts.append(self.activation if self.kind in KERNELS else "")
        return ", ".join([self.kind, *filter(None, parts)])

    @property
    def range(self) -> tuple[float, float]:
        """What the result can be in the file, in units of the Keras model."""
        if self.tensor is None or not len(self.tensor.scales):
            return -np.inf, np.inf
        limits, scale = np.iinfo(self.tensor.dtype), np.float64(self.tensor.scales[0]) / self.factor
        low, high = ((end - int(self.tensor.zero_points[0])) * scale for end in (limits.min, limits.max))
        return float(low), float(high)

    def clamps_like(self, activation: str) -> bool:
        """Whether the file does what an activation does, be it written down or implied by the range of the result."""
        low, high = self.range
        if self.activation == "RELU6" and self.factor != 1.0:
            return False
        if self.activation == "NONE" and activation == "NONE":
            return True
        ends_at_six = self.activation == "RELU6" or high <= SIX * TOLERANCE
        begins_at_zero = self.activation != "NONE" or low == 0.0
        if activation == "RELU6":
            return begins_at_zero and ends_at_six
        return activation == "RELU" and begins_at_zero and (self.activation != "RELU6" or high <= SIX * TOLERANCE)

    def is_like(self, other: Step) -> bool:
        """Whether it does what a step of a Keras model does, whatever they read."""
        same = ("kind", "shape", "strides", "dilation", "padding")
        return all(getattr(self, name) == getattr(other, name) for name in same) and (
            self.kind not in KERNELS or self.clamps_like(other.activation)
        )


def behind_scales(step: Step | None) -> Step | None:
    """The step itself, or the one whose result it multiplies by a constant."""
    while step is not None and step.kind in INVISIBLE:
        step = step.sources[0]
    return step


def same_padding(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> tuple[int, ...]:
    """(top, bottom, left, right) of padding="same"."""
    ends: list[int] = []
    for size, width, stride, rate in zip(sizes, kernel, strides, dilation, strict=True):
        total = max((-(-size // stride) - 1) * stride + (width - 1) * rate + 1 - size, 0)
        ends += [total // 2, total - total // 2]
    return tuple(ends)


class Match:
    """Which step of a file does what each step of a Keras model does.

    Attributes:
        pairs: (the file's, the model's), in the model's order, as far as they agree.
        difference: the first one, in words; None where the model is found as a whole.
        left: the file's steps that belong to no step of the model.
    """

    def __init__(self, found: Sequence[Step], expected: Sequence[Step], name: str):
        self.left = [step for step in found if step.kind not in INVISIBLE]
        self.pairs: list[tuple[Step, Step]] = []
        self.difference: str | None = None
        partner: dict[Step | None, Step | None] = {None: None}
        for step in expected:
            readers = list(self._readers([partner[source] for source in step.sources]))
            match = next((reader for reader in readers if reader.is_like(step)), None)
            if match is None:
                self.difference = self._difference(readers, step, name)
                return
            partner[step] = match
            self.left.remove(match)
            self.pairs.append((match, step))

    def _readers(self, sources: list[Step | None]) -> Iterator[Step]:
        """The steps not found yet that read these, in whatever order."""
        wanted = sorted(map(id, sources))
        return (step for step in self.left if sorted(id(behind_scales(one)) for one in step.sources) == wanted)

    def _difference(self, readers: list[Step], step: Step, name: str) -> str:
        if readers:
            return f"operation {_number(readers[0])} is {readers[0]}, where {name} has {step}"
        if not self.left:
            return f"it ends where {name} has {step}"
        first = self.left[0]
        called = first.operator.name if first.operator else first.kind
        return f"operation {_number(first)}, {called}, does not read what the one before it wrote"


def _number(step: Step) -> int | str:
    return step.operator.index if step.operator else "?"
