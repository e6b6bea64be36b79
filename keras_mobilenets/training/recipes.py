"""How MobileNets are trained, as data: the published recipes and those of this package. Needs no Keras.

Published figures are as their source gives them; what a source leaves open says so. They are for the batch size that
they were published with: `rate` and `momentum` scale them to another one and to shorter runs.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

LONGEST_AVERAGE = 0.1  # share of a run that a moving average may look back: or a short run ends as it began


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a training needs to know beside the model and the pictures.

    Attributes:
        name: for `--recipe`.
        source: where it was published, or measured.
        batch_size: that its learning rate and averages are for.
        learning_rate: the highest one.
        epochs: of training. A run of fewer epochs goes through the same schedule faster.
        optimizer: name of a Keras optimizer.
        options: the optimizer's further arguments.
        linear: whether the rate grows with the batch size, as for steps that follow the gradient's size, or with its
            square root, as for steps that are divided by it.
        decay: the rate is multiplied by it every `decay_epochs`; None: it falls as a cosine to 0.
        decay_epochs: see `decay`.
        power: where it is given, the rate falls as this power of the share of steps that is left.
        warm_up: share of the steps in which the rate rises from 0, before a cosine.
        l2: weight decay of convolutions and of the classifier. None is put on depthwise kernels, which have few
            weights (arXiv:1704.04861, section 3.2), nor on normalizations and biases.
        label_smoothing: in [0, 1).
        dropout: rate before the classifier.
        ema: decay of the moving average of the weights with which the model is evaluated and left; None for none.
        batch_norm_momentum: of its moving averages; None: the model's own.
        stages: of fine-tuning after the head: (how many stages of the network from its end are trained, share of the
            epochs, factor of the learning rate). Without any the whole network is trained at once.
        quantize: name of the recipe with which the model is then trained quantization-aware; its delay is `epochs`.
    """

    name: str
    source: str
    batch_size: int
    learning_rate: float
    epochs: int
    optimizer: str = "Adam"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    linear: bool = False
    decay: float | None = None
    decay_epochs: float = 1.0
    power: float | None = None
    warm_up: float = 0.1
    l2: float = 0.0
    label_smoothing: float = 0.0
    dropout: float = 0.2
    ema: float | None = None
    batch_norm_momentum: float | None = None
    stages: tuple[tuple[int | None, float, float], ...] = ()
    quantize: str | None = None

    def rate(self, batch_size: int) -> float:
        """The highest learning rate for a batch size.

        Example:

        >>> recipe("v3-paper").rate(2048)
        0.05
        """
        return self.learning_rate * (batch_size / self.batch_size) ** (1.0 if self.linear else 0.5)

    def momentum(self, published: float, *, batch_size: int, steps: int) -> float:
        """The decay of a moving average that looks back over as many pictures as the published one.

        In a run of fewer steps than that was made for it looks back over a tenth of them.

        Args:
            published: decay per step at the recipe's batch size, in [0, 1).
            batch_size: of the run.
            steps: of the run.

        Example:

        >>> recipe("v3-paper").momentum(0.9999, batch_size=2048, steps=10**6)
        0.99995
        >>> recipe("v3-paper").momentum(0.9999, batch_size=2048, steps=1000)
        0.99
        """
        window = self.batch_size / ((1 - published) * batch_size)
        return round(1 - 1 / max(min(window, LONGEST_AVERAGE * steps), 1.0), 10)


_RMSPROP = {"rho": 0.9, "momentum": 0.9, "epsilon": 1.0}  # epsilon: TF-slim's train_image_classifier.py

_V4: tuple[tuple[Any, ...], ...] = (
    # network, batch, rate, epochs, decay, dropout, EMA, batch norm, further arguments; what `fit` leaves to others
    (
        *("conv-small", 4096, 0.002, 9598, 0.01, 0.3, 0.9999, 0.95, {"beta_1": 0.6, "epsilon": 1e-6}),
        "l2 of 1e-5, RandAugment 9 at .5",
    ),
    (
        *("conv-medium", 4096, 0.004, 500, 0.1, 0.2, None, 0.997, {}),
        "drop_path=.075, RandAugment 15 at .7",
    ),
    (
        *("conv-large", 16384, 0.004, 500, 0.2, 0.2, None, 0.997, {}),
        "drop_path=.2 in all blocks, RandAugment 15, mixup .8 and cutmix 1 at .2",
    ),
    (
        *("hybrid-medium", 16384, 0.016, 500, 0.1, 0.2, None, 0.997, {}),
        "drop_path=.075, RandAugment 15 at .7",
    ),
    (
        *("hybrid-large", 16384, 0.01, 500, 0.2, 0.2, None, 0.997, {}),
        "drop_path=.35, RandAugment 15, mixup .8 and cutmix 1 at .3",
    ),
)

RECIPES = {
    one.name: one
    for one in (
        Recipe(
            name="scratch",
            source="this package (benchmarks/recipes.py compares it)",
            batch_size=64,
            learning_rate=5e-3,
            epochs=12,
            batch_norm_momentum=0.9,
            quantize="scratch-qat",
        ),
        Recipe(
            name="scratch-qat",
            source="this package (benchmarks/recipes.py compares it)",
            batch_size=64,
            learning_rate=2e-4,
            epochs=2,
        ),
        Recipe(
            name="finetune",
            source="this package (benchmarks/recipes.py compares it)",
            batch_size=64,
            learning_rate=4e-4,
            epochs=6,
            stages=((2, 1 / 3, 1.0), (None, 2 / 3, 0.5)),
            quantize="finetune-qat",
        ),
        Recipe(
            name="finetune-qat",
            source="this package (benchmarks/recipes.py compares it)",
            batch_size=64,
            learning_rate=2e-5,
            epochs=2,
        ),
        Recipe(
            name="detection",
            source="this package: small pictures from random weights",
            batch_size=16,
            learning_rate=3e-3,
            epochs=20,
            batch_norm_momentum=0.9,
            quantize="detection-qat",
        ),
        Recipe(
            name="detection-finetune",
            source="this package: a few hundred pictures from ImageNet weights",
            batch_size=16,
            learning_rate=1e-3,
            epochs=40,
            batch_norm_momentum=0.97,
            quantize="detection-qat",
        ),
        Recipe(
            name="detection-qat",
            source="this package",
            batch_size=16,
            learning_rate=5e-5,
            epochs=2,
        ),
        Recipe(
            name="ssdlite-torchvision",
            source="torchvision references/detection/README.md, ssdlite320_mobilenet_v3_large: 8 GPUs x 24",
            batch_size=192,
            learning_rate=0.15,
            epochs=660,
            optimizer="SGD",
            options={"momentum": 0.9},
            linear=True,
            warm_up=0.0,
            l2=4e-5,
            batch_norm_momentum=0.97,
            quantize="detection-qat",
        ),
        Recipe(
            name="ssdlite-tensorflow",
            source="tensorflow/models research/object_detection, ssdlite_mobilenet_v3_large_320x320_coco.config: "
            "400,000 steps on COCO",
            batch_size=512,
            learning_rate=0.4,
            epochs=1735,
            optimizer="SGD",
            options={"momentum": 0.9},
            linear=True,
            warm_up=0.005,
            l2=4e-5,
            batch_norm_momentum=0.97,
            quantize="detection-qat",
        ),
        Recipe(
            name="segmentation",
            source="this package: some hundred pictures from random weights",
            batch_size=16,
            learning_rate=3e-3,
            epochs=30,
            batch_norm_momentum=0.9,
            quantize="segmentation-qat",
        ),
        Recipe(
            name="segmentation-finetune",
            source="this package: some hundred pictures from ImageNet weights",
            batch_size=16,
            learning_rate=1e-3,
            epochs=30,
            batch_norm_momentum=0.97,
            quantize="segmentation-qat",
        ),
        Recipe(
            name="segmentation-qat",
            source="this package",
            batch_size=16,
            learning_rate=5e-5,
            epochs=3,
        ),
        Recipe(
            name="lraspp-torchvision",
            source="torchvision references/segmentation: README.md, lraspp_mobilenet_v3_large: 8 GPUs x 4; train.py",
            batch_size=32,
            learning_rate=0.01,
            epochs=30,
            optimizer="SGD",
            options={"momentum": 0.9},
            linear=True,
            power=0.9,
            l2=1e-6,
            batch_norm_momentum=0.99,
            quantize="segmentation-qat",
        ),
        Recipe(
            name="deeplab-paper",
            source="arXiv:1706.05587, section 4.1: 30,000 steps on Pascal's 10,582 pictures; l2: research/deeplab "
            "train.py, for MobileNetV2",
            batch_size=16,
            learning_rate=0.007,
            epochs=45,
            optimizer="SGD",
            options={"momentum": 0.9},
            linear=True,
            power=0.9,
            l2=4e-5,
            batch_norm_momentum=0.9997,
            quantize="segmentation-qat",
        ),
        Recipe(
            name="adam",
            source="Keras' defaults, a constant rate: what recipes are measured against",
            batch_size=64,
            learning_rate=1e-3,
            epochs=12,
            decay=1.0,
            quantize="finetune-qat",
        ),
        Recipe(
            name="v1-paper",
            source="arXiv:1704.04861, section 3.2; rates: TF-slim mobilenet_v1_train.py; RMSprop's figures and epochs: "
            "Inception V3 (arXiv:1512.00567), which it refers to; the rest: TF-slim mobilenet_v1.py",
            batch_size=64,
            learning_rate=0.045,
            epochs=100,
            optimizer="RMSprop",
            options={**_RMSPROP, "momentum": 0.0},
            linear=True,
            decay=0.94,
            decay_epochs=2.5,
            l2=4e-5,
            dropout=0.001,
            batch_norm_momentum=0.9997,
            quantize="qat-paper",
        ),
        Recipe(
            name="v2-paper",
            source="arXiv:1801.04381, section 6.1; label smoothing, EMA: TF-slim mobilenet/README.md; dropout, batch "
            "normalization: mobilenet.py; epochs are not published: as torchvision's references/classification",
            batch_size=96,
            learning_rate=0.045,
            epochs=300,
            optimizer="RMSprop",
            options=_RMSPROP,
            linear=True,
            decay=0.98,
            decay_epochs=1.0,
            l2=4e-5,
            label_smoothing=0.1,
            ema=0.9999,
            batch_norm_momentum=0.997,
            quantize="qat-paper",
        ),
        Recipe(
            name="v3-paper",
            source="arXiv:1905.02244, section 6.1.1; epochs and RMSprop's epsilon are not published: as torchvision's "
            "references/classification",
            batch_size=4096,
            learning_rate=0.1,
            epochs=600,
            optimizer="RMSprop",
            options={**_RMSPROP, "epsilon": 1e-3},
            linear=True,
            decay=0.99,
            decay_epochs=3.0,
            l2=1e-5,
            ema=0.9999,
            batch_norm_momentum=0.99,
            quantize="qat-paper",
        ),
        *(
            Recipe(
                name=f"v4-{network}-paper",
                source=f"tensorflow/models official/vision, imagenet_mobilenetv4_{network.replace('-', '_')}_tpu.yaml; "
                f"beside it {beside}",
                batch_size=batch_size,
                learning_rate=learning_rate,
                epochs=epochs,
                optimizer="AdamW",
                options=options,
                warm_up=1560 * batch_size / (1_281_167 * epochs),
                l2=decay,
                label_smoothing=0.1,
                dropout=dropout,
                ema=ema,
                batch_norm_momentum=momentum,
                quantize="qat-paper",
            )
            for network, batch_size, learning_rate, epochs, decay, dropout, ema, momentum, options, beside in _V4
        ),
        Recipe(
            name="qat-paper",
            source="arXiv:1806.08342, section 3.2; momentum and epochs are not published: as torchvision's "
            "references/classification",
            batch_size=64,
            learning_rate=1e-5,
            epochs=10,
            optimizer="SGD",
            options={"momentum": 0.9},
            linear=True,
            decay=1.0,
        ),
    )
}


def recipe(name: str) -> Recipe:
    """A recipe by its name.

    Args:
        name: one of `RECIPES`.

    Raises:
        ValueError: there is none of that name; the near ones are named.

    Example:

    >>> recipe("v2-paper").ema
    0.9999
    """
    if name not in list(RECIPES):
        near = difflib.get_close_matches(str(name), RECIPES, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise ValueError(f"There is no recipe {name!r}. {hint}Known: {', '.join(RECIPES)}")
    return RECIPES[name]
