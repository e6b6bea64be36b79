"""Which operations small targets have, so that a file's report says what it would lack there."""

from __future__ import annotations

from collections.abc import Iterable

_TFLITE_MICRO = (
    "ABS ADD ADD_N ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_TO_SPACE_ND CAST CEIL CONCATENATION CONV_2D COS CUMSUM "
    "DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE DIV ELU EQUAL EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD "
    "FULLY_CONNECTED GATHER GATHER_ND GREATER GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS "
    "LESS_EQUAL LOG LOG_SOFTMAX LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC MAX_POOL_2D MAXIMUM MEAN MINIMUM "
    "MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE REDUCE_MAX RELU RELU6 RESHAPE RESIZE_BILINEAR "
    "RESIZE_NEAREST_NEIGHBOR ROUND RSQRT SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT "
    "SQUARE SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TFLite_Detection_PostProcess TRANSPOSE "
    "TRANSPOSE_CONV UNPACK ZEROS_LIKE"
)
TFLITE_MICRO = frozenset(_TFLITE_MICRO.split())
"""Of tflite-micro, tensorflow/lite/micro/micro_mutable_op_resolver.h."""

_EDGE_TPU = (
    "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED L2_NORMALIZATION LOGISTIC "
    "MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_N1_TO_1 "
    "RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQUEEZE STRIDED_SLICE "
    "SUB SUM SQUARED_DIFFERENCE TANH TRANSPOSE TRANSPOSE_CONV"
)
EDGE_TPU = frozenset(_EDGE_TPU.split())
"""Of Coral's compiler 16 (https://coral.ai/docs/edgetpu/models-intro/#supported-operations). HARD_SWISH is not there:
google-coral/edgetpu issues 272 and 353."""

TARGETS = {"tflite-micro": TFLITE_MICRO, "edgetpu": EDGE_TPU}


def lacking(operations: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """For each of `TARGETS` those of the operations that it does not have.

    Example:

    >>> lacking(["CONV_2D", "HARD_SWISH"])
    {'tflite-micro': (), 'edgetpu': ('HARD_SWISH',)}
    """
    wanted = sorted(set(operations))
    return {target: tuple(name for name in wanted if name not in known) for target, known in TARGETS.items()}
