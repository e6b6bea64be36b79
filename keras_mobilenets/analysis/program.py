"""What a model computes, step by step: the form in which a Keras model and a `.tflite` file are analysed alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

POINTWISE, CONNECTED, SQUEEZE = "pointwise 1x1", "fully connected", "squeeze-excite"
NORMALIZATION, ELEMENTWISE, POOLING, OTHER = "normalization", "elementwise", "pooling", "other"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One operation on feature maps.

    Attributes:
        name: of the layer, or of what the operation of a file computes.
        operation: the layer's class, or the file's name of the operation.
        kind: "conv 3x3", "depthwise 5x5" or one of the constants above.
        inputs: numbers of the feature maps it reads.
        outputs: numbers of those it writes.
        parameters: weights that no earlier step has counted.
        madds: multiply-adds for one image.
        weight_bytes: of those weights in (float32, int8).
        is_counted: False where there is a kernel, and no rule for its multiply-adds.
    """

    name: str
    operation: str
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    parameters: int = 0
    madds: int = 0
    weight_bytes: tuple[int, int] = (0, 0)
    is_counted: bool = True


@dataclass(frozen=True)
class Program:
    """A model as steps in the order in which they run.

    Attributes:
        name: of the model.
        steps: what it computes.
        shapes: of the feature maps by their numbers, without the batch.
        inputs: numbers of the feature maps that it is given.
        outputs: numbers of those that it gives.
    """

    name: str
    steps: tuple[Step, ...]
    shapes: dict[int, Shape]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def elements(self, maps: Iterable[int]) -> int:
        """How many numbers feature maps hold."""
        return sum(math.prod(self.shapes[one]) for one in maps)


def kind_by_shape(inputs: Sequence[Shape], output: Shape) -> str:
    """The kind of an operation without a kernel: elementwise gives a map of the shape of one that it takes."""
    return ELEMENTWISE if output in inputs else OTHER


def with_kinds_of_use(program: Program) -> Program:
    """Tells apart what only its place in the model tells: 1x1 convolutions behind global pooling.

    What lies between a global pooling and the product of its result with a whole feature map is squeeze-excite, and
    a 1x1 convolution behind any other global pooling is a fully connected layer.
    """
    makers = {one: number for number, step in enumerate(program.steps) for one in step.outputs}
    pooled: set[int] = set()
    kinds = [step.kind for step in program.steps]
    for number, step in enumerate(program.steps):
        behind = [one for one in step.inputs if one in pooled]
        if step.kind == POOLING and all(_is_pixel(program.shapes[one]) for one in step.outputs):
            pooled.update(step.outputs)
        elif behind and len(behind) == len(step.inputs):
            pooled.update(step.outputs)
            if step.kind == POINTWISE:
                kinds[number] = CONNECTED
        elif behind and step.kind == ELEMENTWISE:
            for inside in [number, *_back_to_pooling(program, makers, behind)]:
                kinds[inside] = SQUEEZE
    return replace(
        program, steps=tuple(replace(step, kind=kind) for step, kind in zip(program.steps, kinds, strict=True))
    )


def _is_pixel(shape: Shape) -> bool:
    return math.prod(shape) == shape[-1]


def _back_to_pooling(program: Program, makers: dict[int, int], waiting: list[int]) -> set[int]:
    """Numbers of the steps that led from a global pooling to these maps."""
    found: set[int] = set()
    while waiting:
        number = makers[waiting.pop()]
        if number not in found:
            found.add(number)
            if program.steps[number].kind != POOLING:
                waiting.extend(program.steps[number].inputs)
    return found


def schedule(program: Program) -> list[tuple[int, bool]]:
    """For each step, how many numbers of feature maps exist while it runs, and whether it overwrites what it reads.

    A map lives from the step that writes it to the last that reads it. An operation that works number by number on
    one map, and is the last to read it, writes its result in the same place. This is the least that any runtime needs
    which computes in this order and keeps whole maps.
    """
    last = {one: number for number, step in enumerate(program.steps) for one in step.inputs}
    last.update(dict.fromkeys(program.outputs, len(program.steps)))
    alive = set(program.inputs)
    found = []
    for number, step in enumerate(program.steps):
        overwrites = _may_overwrite(program, step) and last[step.inputs[0]] == number
        kept = alive - set(step.inputs) if overwrites else alive
        alive = kept | set(step.outputs)
        found.append((program.elements(alive), overwrites))
        alive = {one for one in alive if last.get(one, -1) > number}
    return found


def _may_overwrite(program: Program, step: Step) -> bool:
    if step.madds or step.kind == POOLING or len(step.inputs) != 1:
        return False
    return program.elements(step.inputs) == program.elements(step.outputs)
