"""A network's widths as rows of its builder's table."""

from __future__ import annotations

from typing import Any

import keras

from keras_mobilenets.applications import mobilenet, mobilenet_v2, mobilenet_v3, mobilenet_v4, mobilenet_v4_tables
from keras_mobilenets.layers import DepthwiseSeparableConv, InvertedResidual, inline


def table_rows(model: keras.Model) -> str:
    """Prints what a network is made of as the table of its builder, whose `alpha` is 1 then.

    Args:
        model: a MobileNet of this package, from a builder or from `build_classifier`, `narrow` or `netadapt`.

    Returns:
        Lines of Python: TABLE and the widths beside it, to be pasted into the builder's module.

    Raises:
        ValueError: it is no MobileNet of this package.

    Example:

    >>> model = MobileNetV2((32, 32, 3), alpha=0.5, weights=None)
    >>> print(table_rows(narrow(model, {"block_1_expand": 32})))
    STEM_FILTERS = 16
    TABLE = (
        Row(1, 8, 1, 1),
        Row(4, 16, 1, 2),
    ...
    """
    flat = {layer.name: layer for layer in inline(model).layers}
    if "conv_dw_1" in flat:
        lines = _v1(model, flat)
    elif "Conv1" in flat and "expanded_conv_depthwise" in flat:
        lines = _v2(model, flat)
    elif "conv" in flat and "expanded_conv_depthwise" in flat:
        lines = _v3(model, flat)
    elif "conv" in flat and ("block_0_conv" in flat or "block_0_expand" in flat):
        lines = _v4(model, flat)
    else:
        raise ValueError(f"`model` must be a MobileNet of this package. Received: {model.name!r}")
    return "\n".join(lines)


def _v1(model: keras.Model, flat: dict[str, Any]) -> list[str]:
    blocks = [layer for layer in model.layers if isinstance(layer, DepthwiseSeparableConv)]
    rows = [f"Row({row.stride}, {one.filters})" for row, one in zip(mobilenet.TABLE, blocks, strict=True)]
    return [f"STEM_FILTERS = {flat['conv1'].filters}", *_table(rows)]


def _v2(model: keras.Model, flat: dict[str, Any]) -> list[str]:
    rows = [
        f"Row({_expansion(one, flat)}, {one.filters}, 1, {stride})"
        for (_, stride), one in zip(mobilenet_v2.BLOCKS, _blocks(model), strict=True)
    ]
    last = f"LAST_FILTERS = {flat['Conv_1'].filters}"
    return [f"STEM_FILTERS = {flat['Conv1'].filters}", *_table(rows), last]


def _v3(model: keras.Model, flat: dict[str, Any]) -> list[str]:
    blocks = _blocks(model)
    networks = {len(network.table): network for network in (mobilenet_v3.LARGE, mobilenet_v3.SMALL)}
    rows = []
    for row, one in zip(networks[len(blocks)].table, blocks, strict=True):
        inside = flat[f"{one.name}_depthwise"].kernel.shape[-2]
        words = (one.kernel_size, inside, one.filters, one.se_ratio, f'"{one.activation}"', row.stride)
        rows.append(f"Row({', '.join(map(str, words))})")
    return [f"STEM_FILTERS = {flat['conv'].filters}", *_table(rows)]


def _v4(model: keras.Model, flat: dict[str, Any]) -> list[str]:
    tables = mobilenet_v4_tables
    networks = [value for value in vars(tables).values() if isinstance(value, tables.Network)]
    blocks = {layer.name: layer for layer in model.layers}
    count = 1 + max(int(name.split("_")[1]) for name in flat if name.startswith("block_"))
    network = next(one for one in networks if len(one.table) == count and _is_of(one, blocks))
    rows = []
    for index, row in enumerate(network.table):
        words: tuple[Any, ...]
        name = f"block_{index}"
        if isinstance(row, tables.UIB):
            one = blocks[name]
            words = (one.start_kernel_size or 0, one.kernel_size or 0, row.stride, one.filters, _expansion(one, flat))
        elif isinstance(row, tables.Conv):
            words = (row.kernel_size, row.stride, flat[f"{name}_conv"].filters)
        elif isinstance(row, tables.Fused):
            expand = flat[f"{name}_expand"]
            ratio = _ratio(expand.filters, expand.kernel.shape[-2])
            words = (row.kernel_size, row.stride, flat[f"{name}_project"].filters, ratio)
        else:
            words = (row.heads, row.key_dim, row.kv_strides)
        rows.append(f"{type(row).__name__}({', '.join(map(str, words))})")
    return [f"stem_filters = {flat['conv'].filters}", *_table(rows), f"NECK_FILTERS = {flat['conv_1'].filters}"]


def _is_of(network: Any, blocks: dict[str, Any]) -> bool:
    return all(
        (f"block_{index}" in blocks) == isinstance(row, mobilenet_v4.UIB | mobilenet_v4.MQA)
        and (not isinstance(row, mobilenet_v4.UIB) or _kernels(blocks[f"block_{index}"]) == (row.start, row.middle))
        for index, row in enumerate(network.table)
    )


def _kernels(block: Any) -> tuple[int, int]:
    return getattr(block, "start_kernel_size", -1) or 0, block.kernel_size or 0


def _blocks(model: keras.Model) -> list[Any]:
    return [layer for layer in model.layers if isinstance(layer, InvertedResidual)]


def _expansion(block: Any, flat: dict[str, Any]) -> str:
    if block.expansion is None:
        return "1"
    kernel = flat[f"{block.name}_expand"].kernel
    return _ratio(kernel.shape[-1], kernel.shape[-2])


def _ratio(wide: int, narrow: int) -> str:
    return str(wide // narrow) if wide % narrow == 0 else f"{wide} / {narrow}"


def _table(rows: list[str]) -> list[str]:
    return ["TABLE = (", *(f"    {row}," for row in rows), ")"]
