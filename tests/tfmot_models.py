"""The models of tfmot's integration tests, and what is near them.

The table holds each layer of tfmot's registry with its options, alone and between others, each merge, each of its
transforms, shapes of models, and keras.applications. A layer stands as its text, which is the name of its test, too.
"""

import keras
from keras import layers as L
from keras import ops

IMAGE, ROW, VOLUME = (8, 8, 4), (12, 6), (4, 4, 8, 3)
INTEGER = {
    IMAGE: """
        ReLU() | ReLU(6.0) | ReLU(4.0) | ReLU(1.5, negative_slope=0.1) | ReLU(negative_slope=0.2) | LeakyReLU()
        LeakyReLU(negative_slope=0.1) | PReLU() | PReLU(shared_axes=[1, 2]) | Softmax() | Softmax(axis=1)
        Activation('relu') | Activation('relu6') | Activation('linear') | Activation('tanh') | Activation('sigmoid')
        Activation('softmax') | Activation('swish') | Activation('gelu') | Activation('hard_sigmoid')
        Activation('hard_swish') | Activation('exponential') | Activation('leaky_relu') | Activation('hard_tanh')
        Conv2D(5, 3) | Conv2D(5, 3, strides=2, padding='same') | Conv2D(5, 3, dilation_rate=2) | Conv2D(4, 1, groups=2)
        Conv2D(5, (1, 3), use_bias=False) | Conv2D(5, 3, activation='relu') | Conv2D(5, 3, activation='relu6')
        Conv2D(5, 3, activation='tanh') | Conv2D(5, 3, activation='softmax') | Conv2D(5, 3, activation='gelu')
        DepthwiseConv2D(3) | DepthwiseConv2D(3, strides=2, padding='same') | DepthwiseConv2D(3, depth_multiplier=2)
        DepthwiseConv2D(3, dilation_rate=2, activation='relu') | DepthwiseConv2D(3, use_bias=False)
        SeparableConv2D(5, 3) | SeparableConv2D(5, 3, strides=2, padding='same', activation='relu')
        Conv2DTranspose(5, 3) | Conv2DTranspose(5, 2, strides=2, padding='same', activation='relu')
        Conv2DTranspose(5, 3, strides=2, padding='same', use_bias=False) | Dense(5) | Dense(5, activation='relu')
        MaxPooling2D(2) | MaxPooling2D(3, strides=2, padding='same') | AveragePooling2D(2)
        AveragePooling2D(3, strides=2, padding='same') | GlobalAveragePooling2D() | GlobalMaxPooling2D()
        GlobalAveragePooling2D(keepdims=True) | UpSampling2D(2) | UpSampling2D(2, interpolation='bilinear')
        ZeroPadding2D(1) | ZeroPadding2D(((0, 1), (1, 0))) | Cropping2D(1) | Flatten() | Permute((3, 1, 2))
        Reshape((16, 16)) | Dropout(0.2) | SpatialDropout2D(0.2) | GaussianNoise(0.1) | ActivityRegularization(l2=0.1)
        BatchNormalization() | BatchNormalization(scale=False, center=False) | Rescaling(0.5, 0.1) | Resizing(5, 6)
        Resizing(5, 6, interpolation='nearest') | CenterCrop(5, 6)
    """,
    ROW: """
        Conv1D(5, 3) | Conv1D(5, 3, strides=2, padding='same', activation='relu') | Conv1D(5, 3, padding='causal')
        Conv1D(5, 3, dilation_rate=2) | DepthwiseConv1D(3) | DepthwiseConv1D(3, strides=2, padding='same')
        SeparableConv1D(5, 3) | SeparableConv1D(5, 3, strides=2, padding='same', activation='relu') | Dense(5)
        MaxPooling1D(2) | AveragePooling1D(2) | MaxPooling1D(3, strides=2, padding='same') | GlobalAveragePooling1D()
        GlobalMaxPooling1D() | UpSampling1D(2) | ZeroPadding1D(2) | Cropping1D(1) | SpatialDropout1D(0.2)
        BatchNormalization() | Permute((2, 1)) | Flatten() | TimeDistributed(Dense(4, activation='relu'))
        EinsumDense('abc,cd->abd', output_shape=(12, 4), bias_axes='d') | LeakyReLU() | Softmax()
    """,
    VOLUME: """
        MaxPooling3D(2) | AveragePooling3D(2) | MaxPooling3D((1, 2, 3), padding='same') | GlobalAveragePooling3D()
        GlobalMaxPooling3D() | UpSampling3D(2) | ZeroPadding3D(1) | Cropping3D(1) | SpatialDropout3D(0.2)
    """,
    (6,): """
        Dense(5) | Dense(5, use_bias=False) | Dense(5, activation='softmax') | Dense(5, activation='sigmoid')
        BatchNormalization() | RepeatVector(3) | Reshape((2, 3)) | Dropout(0.5)
    """,
}
FLOAT = {
    IMAGE: """
        ELU() | ReLU(threshold=0.5) | LayerNormalization() | GroupNormalization(2) | UnitNormalization()
        Activation('elu') | Activation('selu') | Activation('softplus') | Activation('mish') | Activation('log_softmax')
        Lambda(ops.sin)
    """,
    ROW: "LSTM(4) | GRU(4) | SimpleRNN(4) | Bidirectional(LSTM(3)) | LSTM(4, return_sequences=True) | Masking()",
    VOLUME: "Conv3D(4, 3, padding='same') | Conv3DTranspose(4, 3)",
}


IDLE = ("Dropout", "Spatial", "GaussianNoise", "Activity", "Activation('linear")
NO_MODEL = ("Rescaling", "Resizing", "CenterCrop", *IDLE)
"""Alone they are what is in front of a model, or do nothing at inference."""


def of_text(text):
    """The layer that a text of the table stands for."""
    return eval(text, {**vars(L), "ops": ops})


def texts(table):
    return [
        (shape, text.strip())
        for shape, lines in table.items()
        for line in lines.split("\n")
        if line.strip()
        for text in line.split("|")
    ]


def between(shape, text):
    """A layer in the middle of a model."""
    before = {
        1: lambda: L.Dense(6),
        2: lambda: L.Conv1D(6, 3, padding="same"),
        3: lambda: L.Conv2D(4, 3, padding="same"),
    }
    first = [before[len(shape)]()] if len(shape) in before else [L.ReLU()]
    return keras.Sequential([keras.Input(shape), *first, of_text(text), L.Flatten(), L.Dense(3)])


def joined(merge, *, count=2, shape=IMAGE):
    inputs = keras.Input(shape)
    parts = [L.Conv2D(4, 1, activation=kind)(inputs) for kind in ("relu", None, "sigmoid")[:count]]
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(merge(parts))))


def dot(parts):
    return L.Reshape((8, 8, 64))(L.Dot(axes=(2, 2))([L.Reshape((64, 4))(part) for part in parts]))


def operated(function):
    inputs = keras.Input(IMAGE)
    x = function(L.Conv2D(4, 3, padding="same")(inputs))
    return keras.Model(inputs, L.Dense(3)(L.Flatten()(x)))


def stack(*layers, shape=IMAGE):
    return keras.Sequential([keras.Input(shape), *layers])


def batch_norm(**arguments):
    return L.BatchNormalization(**arguments)


MERGES = {
    **{
        f"{kind} of {count}": (lambda kind=kind, count=count: joined(getattr(L, kind)(), count=count))
        for kind in ("Add", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")
        for count in (2, 3)
    },
    "Subtract": lambda: joined(L.Subtract()),
    "Concatenate(axis=1)": lambda: joined(L.Concatenate(axis=1)),
    "Add, ReLU": lambda: joined(lambda parts: L.ReLU()(L.Add()(parts))),
    "Dot": lambda: joined(
        lambda parts: L.Reshape((8, 8, 64))(L.Dot(axes=(2, 2))([L.Reshape((64, 4))(part) for part in parts]))
    ),
}
OPERATIONS = {
    "split": lambda x: ops.add(*ops.split(x, 2, axis=-1)),
    "unstack, stack": lambda x: ops.stack(ops.unstack(x, axis=1)[:3], axis=1),
    "slice of channels": lambda x: x[..., 1:3],
    "slice with steps": lambda x: x[:, ::2, 1:],
    "repeat, tile": lambda x: ops.tile(ops.repeat(x, 2, axis=1), (1, 1, 2, 1)),
    "transpose, flip, roll": lambda x: ops.roll(ops.flip(ops.transpose(x, (0, 2, 1, 3)), 1), 1, 1),
    "pad": lambda x: ops.pad(x, [[0, 0], [1, 1], [0, 2], [0, 0]]),
    "mean, max": lambda x: ops.mean(x, -1, keepdims=True) + ops.max(x, -1, keepdims=True),
    "sum": lambda x: ops.sum(x, axis=(1, 2)),
    "maximum with a number": lambda x: ops.maximum(x, 0.2),
    "clip": lambda x: ops.clip(x, -0.5, 0.7),
    "arithmetic": lambda x: 1.0 - x * 0.3 + ops.square(x) - ops.abs(x),
    "matmul": lambda x: ops.matmul(x, ops.transpose(x, (0, 1, 3, 2))),
    "einsum": lambda x: ops.einsum("bhwc,bhvc->bhwv", x, x),
    "softmax, gelu, leaky_relu": lambda x: ops.gelu(ops.leaky_relu(x, 0.3)) * ops.softmax(x, axis=1),
    "image.resize": lambda x: ops.image.resize(x, (5, 5)),
    "pools": lambda x: ops.max_pool(x, 2) - ops.average_pool(x, 2),
}
TRANSFORMS = {
    "conv, norm": lambda: stack(L.Conv2D(4, 3, use_bias=False), batch_norm()),
    "conv, norm, relu": lambda: stack(L.Conv2D(4, 3), batch_norm(), L.ReLU()),
    "conv, norm, relu6": lambda: stack(L.Conv2D(4, 3), batch_norm(), L.Activation("relu6")),
    "conv, relu, norm": lambda: stack(L.Conv2D(4, 3, activation="relu"), batch_norm(), L.Conv2D(3, 1)),
    "norm, relu, conv": lambda: stack(batch_norm(), L.ReLU(), L.Conv2D(4, 3)),
    "depthwise, norm, relu": lambda: stack(L.DepthwiseConv2D(3), batch_norm(), L.ReLU()),
    "depthwise, norm, conv": lambda: stack(L.DepthwiseConv2D(3), batch_norm(), L.Conv2D(3, 1)),
    "separable, norm, relu": lambda: stack(L.SeparableConv2D(4, 3), batch_norm(), L.ReLU()),
    "separable 1D, norm, relu": lambda: stack(L.SeparableConv1D(4, 3), batch_norm(), L.ReLU(), shape=ROW),
    "conv 1D, norm, relu": lambda: stack(L.Conv1D(4, 3), batch_norm(), L.ReLU(), L.Conv1D(3, 3), shape=ROW),
    "transposed, norm, relu": lambda: stack(L.Conv2DTranspose(4, 2, strides=2), batch_norm(), L.ReLU()),
    "dense, norm, relu": lambda: stack(L.Dense(5), batch_norm(), L.ReLU(), L.Dense(3), shape=(6,)),
    "conv, hard-swish": lambda: stack(L.Conv2D(4, 3), batch_norm(), L.Activation("hard_swish"), L.Conv2D(3, 1)),
    "conv, swish": lambda: stack(L.Conv2D(4, 3), batch_norm(), L.Activation("swish"), L.Conv2D(3, 1)),
    "pad, conv": lambda: stack(L.ZeroPadding2D(((0, 1), (0, 1))), L.Conv2D(4, 3, strides=2), L.ReLU(6.0)),
    "conv, reshape, dense": lambda: stack(L.Conv2D(4, 3), L.Reshape((-1,)), L.Dense(3)),
    "conv, dropout, norm": lambda: stack(L.Conv2D(4, 3), L.Dropout(0.2), batch_norm(), L.ReLU()),
}


def two_inputs():
    image, table = keras.Input(IMAGE, name="image"), keras.Input((5,), name="table")
    x = L.Concatenate()([L.GlobalAveragePooling2D()(L.Conv2D(4, 3)(image)), L.Dense(4, activation="relu")(table)])
    return keras.Model([image, table], L.Dense(3)(x))


def siamese():
    inputs = [keras.Input(IMAGE, name=name) for name in ("left", "right")]
    tower = stack(L.Conv2D(4, 3, activation="relu"), L.Flatten(), L.Dense(4))
    return keras.Model(inputs, L.Dense(1)(L.Subtract()([tower(one) for one in inputs])))


def two_outputs():
    inputs = keras.Input(IMAGE)
    x = L.Conv2D(4, 3, activation="relu")(inputs)
    return keras.Model(inputs, {"map": L.Conv2D(2, 1)(x), "classes": L.Dense(3)(L.GlobalAveragePooling2D()(x))})


def shared_layer():
    inputs, conv = keras.Input(IMAGE), L.Conv2D(4, 3, padding="same")
    return keras.Model(inputs, L.Dense(3)(L.Flatten()(conv(conv(inputs)))))


def nested():
    inner = stack(L.Conv2D(4, 3), stack(batch_norm(), L.ReLU(), shape=(6, 6, 4)))
    return stack(inner, L.GlobalAveragePooling2D(), L.Dense(3))


def residual():
    inputs = keras.Input(IMAGE)
    x = L.ReLU()(batch_norm()(L.Conv2D(4, 3, padding="same")(inputs)))
    y = batch_norm()(L.Conv2D(4, 3, padding="same")(x))
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(L.ReLU()(L.Add()([x, y])))))


def dense_block():
    inputs = keras.Input(IMAGE)
    x = L.MaxPooling2D(2)(L.ReLU()(L.Conv2D(4, 3, padding="same")(inputs)))
    for _ in range(2):
        x = L.Concatenate()([x, L.Conv2D(3, 3, padding="same")(L.ReLU()(batch_norm()(x)))])
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(L.ReLU()(batch_norm()(x)))))


def gated():
    inputs = keras.Input(IMAGE)
    x = L.Conv2D(8, 3, padding="same")(inputs)
    gate = L.Dense(8, activation="sigmoid")(L.Dense(4, activation="relu")(L.GlobalAveragePooling2D(keepdims=True)(x)))
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(L.Multiply()([x, gate]))))


def unet():
    inputs = keras.Input(IMAGE)
    x = L.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    y = L.Conv2D(6, 3, strides=2, padding="same", activation="relu")(x)
    up = L.Conv2DTranspose(4, 2, strides=2, activation="relu")(y)
    return keras.Model(inputs, L.Conv2D(2, 1, activation="softmax")(L.Concatenate()([x, up])))


def attention():
    inputs = keras.Input(ROW)
    x = L.Dense(8)(inputs)
    x = L.Add()([x, L.MultiHeadAttention(2, 4, name="attention")(x, x)])
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling1D()(x)))


def words():
    inputs = keras.Input((7,), dtype="int32")
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling1D()(L.Embedding(10, 4)(inputs))))


def argmax():
    inputs = keras.Input(IMAGE)
    return keras.Model(inputs, ops.argmax(L.Dense(5)(L.GlobalAveragePooling2D()(L.Conv2D(4, 3)(inputs))), axis=-1))


SHAPES = {
    function.__name__: function
    for function in (two_inputs, siamese, two_outputs, shared_layer, nested, residual, dense_block, gated, unet)
} | {"argmax": argmax}
PARTLY_FLOAT = {
    "attention": (attention, ["attention"]),
    "words": (words, ["embedding"]),
}
MODELS = {
    **{
        f"{text} on {shape}": (lambda shape=shape, text=text: stack(of_text(text), shape=shape))
        for shape, text in texts(INTEGER)
        if not text.startswith(NO_MODEL)
    },
    **{f"{text} between": (lambda shape=shape, text=text: between(shape, text)) for shape, text in texts(INTEGER)},
    **MERGES,
    **{name: (lambda function=function: operated(function)) for name, function in OPERATIONS.items()},
    **TRANSFORMS,
    **SHAPES,
}


def application(name, size=32, **arguments):
    return getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=5, **arguments)


APPLICATIONS = {
    "MobileNet": {"alpha": 0.25},
    "MobileNetV2": {"alpha": 0.35},
    "MobileNetV3Small": {"minimalistic": True},
    "MobileNetV3Large": {"alpha": 0.75},
    "VGG16": {},
    "ResNet50": {},
    "ResNet50V2": {},
    "DenseNet121": {},
    "InceptionV3": {"size": 75},
    "Xception": {"size": 71},
    "NASNetMobile": {},
    "EfficientNetB0": {},
    "EfficientNetV2B0": {},
}
