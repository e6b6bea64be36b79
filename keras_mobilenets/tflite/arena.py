"""How much memory the tensors of a graph need at once."""

from __future__ import annotations

from keras_mobilenets.tflite.file import Graph

ALIGNMENT = 16  # of TFLite Micro's buffers (micro_arena_constants.h)


def arena_bytes(graph: Graph) -> int:
    """The memory for what a graph computes, placed as TFLite Micro's greedy planner places it.

    The largest tensor first, each at the lowest address at which it overlaps no tensor that lives at the same time
    (tflite-micro, greedy_memory_planner.cc). Weights stay in flash. The runtime's own records and the scratch memory of
    its kernels come on top; XNNPACK on a phone plans differently.

    Args:
        graph: of a `.tflite` file; sizes that may change count as they are in the file.

    Returns:
        Bytes.
    """
    first, last = _lifetimes(graph)
    sizes = {index: -(-graph.tensors[index].size_bytes // ALIGNMENT) * ALIGNMENT for index in first}
    placed: list[tuple[int, int, int]] = []  # start address, end address, tensor
    for index in sorted(sizes, key=lambda one: (-sizes[one], first[one])):
        alive = sorted(entry for entry in placed if first[entry[2]] <= last[index] and first[index] <= last[entry[2]])
        start = 0
        for other_start, other_end, _ in alive:
            if other_start - start >= sizes[index]:
                break
            start = max(start, other_end)
        placed.append((start, start + sizes[index], index))
    return max((end for _, end, _ in placed), default=0)


def _lifetimes(graph: Graph) -> tuple[dict[int, int], dict[int, int]]:
    """The step at which each computed tensor is first written, and the step after which nobody reads it."""
    end = len(graph.operators)
    first: dict[int, int] = dict.fromkeys(graph.inputs, 0)
    last: dict[int, int] = dict.fromkeys(graph.inputs, 0)
    for step, operator in enumerate(graph.operators):
        for index in operator.outputs:
            first.setdefault(index, step)
            last[index] = max(last.get(index, 0), step)
        for index in operator.inputs:
            if index in first:
                last[index] = step
    for index in graph.outputs:
        if index in first:
            last[index] = end
    return first, last
