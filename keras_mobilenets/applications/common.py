"""What the builders share: the checks of their arguments, the image input, strides, and the finished model."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Integral
from typing import Any

import keras

from keras_mobilenets.applications.variants import check_builder
from keras_mobilenets.applications.weights import load_weights
from keras_mobilenets.arguments import check_choice, check_numbers
from keras_mobilenets.layers import BatchNormalization
from keras_mobilenets.layers.activations import activation_layer
from keras_mobilenets.layers.composite import is_padded, padding_layer
from keras_mobilenets.layers.freezing import watch
from keras_mobilenets.utils import user_path

Activation = str | Callable[[Any], Any] | None
Weights = str | os.PathLike[str] | None

PUBLISHED_SIZE = 224
"""Height and width that all MobileNets were published for; `rho` scales it."""

TOTAL_STRIDE = 32
"""Each MobileNet halves its image five times, of which the first two make the stem."""


def check_arguments(*, alpha: float, weights: Weights, pooling: str | None, **dropout: Any) -> None:
    """Refuses what no model can be built from, before anything is built or downloaded.

    Args:
        alpha, weights, pooling: of the builder.
        **dropout: the rate, by the builder's own word.

    Raises:
        ValueError: names the argument, what it must be and what it was.
    """
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "The MobileNets compute in channels_last only, the layout of every mobile runtime. Call "
            "keras.config.set_image_data_format('channels_last') first."
        )
    check_numbers("(0, inf)", alpha=alpha)
    check_numbers("[0, 1)", **dropout)
    check_choice((None, "avg", "max"), pooling=pooling)
    is_path = isinstance(weights, str | os.PathLike) and user_path(weights).exists()
    if weights not in (None, "imagenet") and not is_path:
        raise ValueError(
            "`weights` must be None (random), 'imagenet', or the path of a weight file that exists. "
            f"Received: weights={weights!r}"
        )


def check_classes(classes: int, activation: Activation, *, published: bool) -> None:
    """Refuses what no classifier can be built from.

    Args:
        classes: number of classes.
        activation: of the classifier.
        published: whether it gets published weights.

    Raises:
        ValueError: names the argument, what it must be and what it was.
    """
    if not isinstance(classes, Integral) or isinstance(classes, bool) or classes < 1:
        raise ValueError(f"`classes` must be an integer > 0. Received: classes={classes!r}")
    if published and classes != 1000:
        raise ValueError(
            "`classes` must be 1000 for `weights='imagenet'` with `include_top=True`; for other classes build with "
            f"`include_top=False` and add a head. Received: classes={classes}"
        )
    if published and keras.activations.get(activation) not in (keras.activations.softmax, keras.activations.linear):
        raise ValueError(
            "`classifier_activation` must be None or 'softmax' for `weights='imagenet'`. "
            f"Received: classifier_activation={activation!r}"
        )


def check_published(**arguments: tuple[Any, Any]) -> None:
    """Refuses what no published weights fit; each argument is given as (its value, the published one).

    Raises:
        ValueError: an argument differs from what was published.
    """
    for name, (value, expected) in arguments.items():
        if value != expected:
            raise ValueError(f"`{name}` must be {expected!r} for `weights='imagenet'`. Received: {name}={value!r}")


def image_input(
    input_shape: Sequence[int | None] | None,
    input_tensor: Any,
    *,
    rho: float,
    stem_stride: int,
    fixed_size: bool,
) -> keras.KerasTensor:
    """Gives the image that a model starts from.

    Args:
        input_shape: (height, width, channels) or None, as the builder got it.
        input_tensor: a KerasTensor or None, as the builder got it.
        rho: resolution multiplier, > 0, on the published size.
        stem_stride: of the model: it says how small an image may be.
        fixed_size: whether the input has the published size where neither shape, tensor nor `rho` says otherwise;
            any size else.

    Returns:
        A KerasTensor of shape (batch, height, width, channels).

    Raises:
        ValueError: the shape cannot be an image's, is too small, or contradicts the tensor or `rho`.
    """
    check_numbers("(0, inf)", rho=rho)
    check_choice((1, 2, 4), stem_stride=stem_stride)
    if rho != 1 and (input_shape is not None or input_tensor is not None):
        raise ValueError(
            f"`rho` scales the default size of {PUBLISHED_SIZE} and must be 1 where `input_shape` or `input_tensor` "
            f"gives the size. Received: rho={rho}"
        )
    if input_tensor is not None:
        _check_tensor(input_tensor, input_shape)
        input_shape = input_tensor.shape[1:]
    elif input_shape is None:
        size = round(PUBLISHED_SIZE * rho) if fixed_size or rho != 1 else None
        input_shape = (size, size, 3)
    _check_shape(input_shape, smallest=TOTAL_STRIDE * stem_stride // 4)
    return keras.Input(tuple(input_shape)) if input_tensor is None else input_tensor


def _check_tensor(tensor: Any, shape: Sequence[int | None] | None) -> None:
    if not isinstance(tensor, keras.KerasTensor):
        raise ValueError(
            "`input_tensor` must be a KerasTensor, such as `keras.Input` gives. "
            f"Received: input_tensor={tensor!r} of type {type(tensor).__name__}"
        )
    if len(tensor.shape) != 4:
        raise ValueError(f"`input_tensor` must have 4 axes. Received: input_tensor.shape={tensor.shape}")
    if shape is not None and tuple(shape) != tuple(tensor.shape[1:]):
        raise ValueError(
            "`input_shape` must equal the shape of `input_tensor` where both are given. "
            f"Received: input_shape={tuple(shape)}, input_tensor.shape={tensor.shape}"
        )


def _check_shape(shape: Sequence[int | None], *, smallest: int) -> None:
    received = f"Received: input_shape={tuple(shape) if isinstance(shape, Sequence) else shape!r}"
    if not isinstance(shape, Sequence) or len(shape) != 3:
        raise ValueError(f"`input_shape` must be (height, width, channels). {received}")
    *sizes, channels = shape
    if not isinstance(channels, Integral) or channels < 1:
        raise ValueError(f"`input_shape` must end with the number of channels, an integer > 0. {received}")
    for size in sizes:
        if size is not None and (not isinstance(size, Integral) or size < smallest):
            raise ValueError(
                f"The image of `input_shape` must be at least {smallest}x{smallest}, or of unknown size (None); "
                f"a smaller `stem_stride` takes smaller images. {received}"
            )


def strides_and_dilations(strides: Sequence[int], *, output_stride: int, stem_stride: int) -> list[tuple[int, int]]:
    """Says how each convolution of a network steps, given the strides in the paper's table.

    A stride that would go beyond `output_stride` becomes 1, and the kernels behind it are dilated instead, so that
    each sees what it saw before (arXiv:1606.00915). The strides that a smaller stem leaves out are the first ones;
    they are not made up for by dilation, as the image itself is smaller.

    Args:
        strides: of the network's convolutions, in order.
        output_stride: largest ratio of input to output size: 32, 16 or 8.
        stem_stride: 4 as published; 2 or 1 for small images.

    Returns:
        A pair (strides, dilation rate) for each.

    Raises:
        ValueError: `output_stride` or `stem_stride` is none of the known ones.

    Example:

    >>> strides_and_dilations([2, 2, 2, 1, 2, 1], output_stride=8, stem_stride=4)
    [(2, 1), (2, 1), (2, 1), (1, 1), (1, 1), (1, 2)]
    """
    check_choice((8, 16, 32), output_stride=output_stride)
    check_choice((1, 2, 4), stem_stride=stem_stride)
    left_out = {4: 0, 2: 1, 1: 2}[stem_stride]
    steps, reached, dilation = [], 1, 1
    for stride in strides:
        if stride == 1:
            steps.append((1, dilation))
        elif left_out:
            left_out -= 1
            steps.append((1, 1))
        elif reached * stride > output_stride:
            steps.append((1, dilation))  # this kernel still sees what it saw; those behind it look twice as far
            dilation *= stride
        else:
            reached *= stride
            steps.append((stride, 1))
    return steps


def convolution(
    x: Any,
    filters: int,
    kernel_size: int,
    *,
    name: str,
    activation: str,
    strides: int = 1,
    bn_name: str | None = None,
    activation_prefix: str | None = None,
    normalization: str | None,
    momentum: float,
    epsilon: float,
    padding: str = "same",
) -> Any:
    """A convolution with its normalization and activation, as stem and neck of the networks have it."""
    if filters < 1:
        raise ValueError(f"`alpha` is too small: {name} would have {filters} filters.")
    use_bias = normalization is None
    if is_padded(padding, strides):
        x, padding = padding_layer(kernel_size, name)(x), "valid"
    padding = "same" if padding == "symmetric" else padding
    x = keras.layers.Conv2D(filters, kernel_size, strides, padding=padding, use_bias=use_bias, name=name)(x)
    if normalization is not None:
        x = BatchNormalization(momentum=momentum, epsilon=epsilon, name=bn_name or f"{name}_bn")(x)
    return activate(x, activation, activation_prefix or name)


def activate(x: Any, activation: str, prefix: str) -> Any:
    """Applies an activation by a layer named after `prefix`."""
    layer = activation_layer(activation, prefix)
    return x if layer is None else layer(x)


def pool(x: Any, pooling: str | None) -> Any:
    """The end of a model without its top: the feature map, or its mean or maximum over height and width."""
    if pooling == "avg":
        return keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return keras.layers.GlobalMaxPooling2D(name="max_pool")(x) if pooling == "max" else x


def on_backbone(
    backbone: str,
    input_shape: Sequence[int | None],
    head: Callable[[Mapping[str, Any]], Any],
    *,
    kind: str,
    name: str | None,
    weights: Weights,
    backbone_weights: Weights,
    free: Collection[str] = (),
    **options: Any,
) -> keras.Model:
    """Puts a head on a builder's feature maps, and makes the model; without a name it is called after its kind.

    Args:
        backbone: name of the builder.
        input_shape: of the builder.
        head: gives the answers on the maps of `endpoints`.
        kind: of network.
        name, weights, free: see `finish`.
        backbone_weights: the builder's `weights`.
        **options: of the builder.
    """
    from keras_mobilenets import applications  # whose builders use this module

    builder = getattr(applications, check_builder(backbone))
    trunk = builder(tuple(input_shape), include_top=False, weights=backbone_weights, **options)
    outputs = head(applications.endpoints(trunk))
    return finish(outputs, trunk.inputs[0], name=name or f"{kind}_{trunk.name}", weights=weights, free=free)


def larger(x: Any, factors: int | tuple[int, int], name: str) -> Any:
    """Maps some times as large, interpolated."""
    return keras.layers.UpSampling2D(factors, interpolation="bilinear", name=name)(x)


def finish(
    outputs: Any, image: keras.KerasTensor, *, name: str, weights: Weights, free: Collection[str] = ()
) -> keras.Model:
    """Makes the model and loads its weights.

    Args:
        outputs: what the model answers.
        image: what it starts from; what `image` itself was computed from becomes part of the model.
        name: of the model.
        weights: path of a weight file, or None.
        free: see `load_weights`.

    Returns:
        The model.

    Raises:
        ValueError: the file does not fit.
    """
    sources = keras.utils.get_source_inputs(image)
    inputs = sources[0] if len(sources) == 1 else sources
    model = keras.Model(inputs, outputs, name=name)
    if weights is not None:
        before = keras.Model(inputs, image).layers  # what leads to the image is the caller's, and in no weight file
        load_weights(model, weights, skip=before, free=free)
    watch(model)
    return model
