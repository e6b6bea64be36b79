"""What each kind of layer does, as far as quantization is concerned."""

from __future__ import annotations

import enum
import functools
from typing import Any

import keras
import numpy as np

from keras_mobilenets.graph import Item
from keras_mobilenets.layers import HardSigmoid, HardSwish, LayerScale
from keras_mobilenets.layers.convolution import Conv2D
from keras_mobilenets.quantization.forms import ArgMax, Clip, Join, Scaling
from keras_mobilenets.quantization.layers import QuantHardSigmoid, QuantHardSwish, QuantKernel
from keras_mobilenets.quantization.quantizers import FakeQuant, InputQuant

_L = keras.layers

KERNEL_LAYERS = (Conv2D, _L.Conv2D, _L.DepthwiseConv2D, _L.Conv2DTranspose, _L.Dense)
"""Exactly these classes; what a subclass computes is not known."""


class Role(enum.Enum):
    """What a node does, as far as quantization is concerned."""

    INPUT = enum.auto()
    KERNEL = enum.auto()  # a convolution or matrix product: int8 kernel, int32 accumulator
    NORM = enum.auto()  # batch normalization, which is folded into a kernel
    SCALE = enum.auto()  # a factor, which is folded into the kernel behind which it stands
    RELU = enum.auto()  # clipping, which the operation before it does on its way out
    HARD_SIGMOID = enum.auto()
    HARD_SWISH = enum.auto()
    COMBINE = enum.auto()  # addition, subtraction, multiplication, of two feature maps or by a constant
    JOIN = enum.auto()  # concatenation, maximum: all inputs must be on the grid of the output
    AVERAGE = enum.auto()  # global average: requantizes
    SAME_GRID = enum.auto()  # averages or interpolates, and rounds to the grid of its input
    REQUANTIZE = enum.auto()  # one integer operation whose result has a grid of its own
    PRODUCT = enum.auto()  # of two feature maps: int32 accumulator
    BOUNDED = enum.auto()  # the range of the result is prescribed
    MOVE = enum.auto()  # only moves values: the result is on the grid of the input
    TRAINING = enum.auto()  # does nothing at inference
    INDEX = enum.auto()  # the result is an index, not a feature map
    FRONT = enum.auto()  # normalization and cropping of images, in front of the model only
    QUANTIZER = enum.auto()  # rounds values to a grid
    OWN = enum.auto()  # a user's own layer, with a QuantizeConfig


PASSING = (Role.MOVE, Role.TRAINING)
"""What gives values back as they are, in other places perhaps."""

# At inference each of these gives back what it got. By name, as some are younger than the oldest Keras that is known.
_TRAINING_ONLY = tuple(
    getattr(_L, name)
    for name in (
        *(
            "Dropout",
            "SpatialDropout1D",
            "SpatialDropout2D",
            "SpatialDropout3D",
            "GaussianDropout",
            "AlphaDropout",
            "GaussianNoise",
            "ActivityRegularization",
        ),
        *("Identity", "RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "RandomContrast"),
        *(
            "RandomBrightness",
            "RandomColorDegeneration",
            "RandomColorJitter",
            "RandomElasticTransform",
            "RandomErasing",
        ),
        *("RandomGaussianBlur", "RandomGrayscale", "RandomHue", "RandomInvert", "RandomPerspective"),
        *("RandomPosterization", "RandomSaturation", "RandomSharpness", "RandomShear", "RandAugment", "AugMix"),
        *("MixUp", "CutMix"),
    )
    if hasattr(_L, name)
)
_ROLES: tuple[tuple[Role, tuple[type, ...]], ...] = (
    (Role.QUANTIZER, (FakeQuant, InputQuant)),
    (Role.KERNEL, (QuantKernel,)),
    (Role.HARD_SIGMOID, (HardSigmoid, QuantHardSigmoid)),
    (Role.HARD_SWISH, (HardSwish, QuantHardSwish)),
    (Role.NORM, (_L.BatchNormalization,)),
    (Role.RELU, (_L.ReLU,)),
    (Role.COMBINE, (_L.Add, _L.Subtract, _L.Multiply, Scaling)),
    (Role.REQUANTIZE, (Join,)),  # which is a Concatenate, too
    (Role.JOIN, (_L.Concatenate, _L.Maximum, _L.Minimum)),
    (Role.AVERAGE, (_L.GlobalAveragePooling1D, _L.GlobalAveragePooling2D, _L.GlobalAveragePooling3D)),
    (Role.SAME_GRID, (_L.AveragePooling2D, _L.UpSampling2D)),
    (Role.REQUANTIZE, (_L.LeakyReLU, _L.PReLU, Clip)),
    (Role.BOUNDED, (_L.Softmax,)),
    (Role.MOVE, (_L.Reshape, _L.Flatten, _L.Permute, _L.RepeatVector, _L.UpSampling1D, _L.UpSampling3D)),
    (Role.MOVE, (_L.ZeroPadding1D, _L.ZeroPadding2D, _L.ZeroPadding3D, _L.Cropping1D, _L.Cropping2D, _L.Cropping3D)),
    (Role.MOVE, (_L.MaxPooling2D, _L.GlobalMaxPooling1D, _L.GlobalMaxPooling2D, _L.GlobalMaxPooling3D)),
    (Role.TRAINING, _TRAINING_ONLY),
    (Role.FRONT, (_L.Normalization, _L.Rescaling, _L.Resizing, _L.CenterCrop)),
    (Role.INDEX, (ArgMax,)),
)
_OPERATION_ROLES = {
    name: role
    for role, names in (
        (
            Role.MOVE,
            "Reshape Squeeze ExpandDims Transpose Swapaxes Moveaxis BroadcastTo GetItem Split ArraySplit Unstack",
        ),
        (Role.MOVE, "Roll Repeat Tile MaxPool Max Amax Min Amin DepthToSpace SpaceToDepth CropImages"),
        (Role.SAME_GRID, "AveragePool Flip"),
        (Role.REQUANTIZE, "Add Subtract Multiply Maximum Minimum Mean Sum Absolute Gelu"),
        (Role.JOIN, "Concatenate Stack"),
        (Role.TRAINING, "Cast StopGradient"),
    )
    for name in names.split()
}
_ACTIVATION_ROLES = {
    "sigmoid": Role.BOUNDED,
    "tanh": Role.BOUNDED,
    "gelu": Role.REQUANTIZE,
    "exponential": Role.REQUANTIZE,
}


def role_of(layer: Any) -> Role | None:
    """The role of a layer; None where the runtimes have no integer form of it."""
    if isinstance(layer, _L.InputLayer):
        return Role.INPUT
    if isinstance(layer, Item):
        return Role.MOVE
    if isinstance(layer, _L.RandomCrop):
        return Role.FRONT if _crops_at_inference() else Role.TRAINING
    if isinstance(layer, _L.Dot):
        return None if layer.normalize else Role.PRODUCT
    if isinstance(layer, LayerScale) or (isinstance(layer, Scaling) and not np.any(layer.offset)):
        return Role.SCALE
    if isinstance(layer, _L.Activation):  # those that have a layer of their own are not left after `lower`
        return _ACTIVATION_ROLES.get(getattr(layer.activation, "__name__", ""))
    if type(layer) in KERNEL_LAYERS:
        return Role.KERNEL
    for role, classes in _ROLES:
        if isinstance(layer, classes):
            return role
    return None if isinstance(layer, _L.Layer) else _role_of_operation(layer, type(layer).__name__)


@functools.cache
def _crops_at_inference() -> bool:
    """Whether `RandomCrop` does what its symbolic shape says: Keras 3.15 gives back whole pictures."""
    pictures = np.zeros((1, 4, 4, 1), "float32")
    return _L.RandomCrop(2, 2)(pictures, training=False).shape[1] == 2


def _role_of_operation(operation: Any, name: str) -> Role | None:
    if name == "Cast" and "float" not in str(operation.dtype):
        return None
    if name == "Pad":
        return Role.MOVE if operation.mode == "constant" else None
    if name == "Resize":
        return Role.SAME_GRID if is_plain_resize(operation) else None
    if name in ("Matmul", "Einsum"):
        return Role.PRODUCT
    return _OPERATION_ROLES.get(name)


def is_plain_resize(layer: Any) -> bool:
    """Whether a `Resizing` or `keras.ops.image.resize` is what runtimes call so."""
    kept = not (layer.antialias or layer.pad_to_aspect_ratio) if hasattr(layer, "antialias") else True
    return kept and layer.interpolation in ("bilinear", "nearest")
