"""Latency of integer MobileNets on this machine, beside what the same architecture gives from other tools.

    python benchmarks/ondevice.py --output benchmarks/ondevice

Peers, of the same architecture and size: keras.applications converted by tf.lite (float32, and int8 by post-training
quantization; with a static batch, which is faster than the default), Google's published files (with
KERAS_MOBILENETS_TESTDATA), ONNX Runtime (float32, and int8 by static QDQ quantization; with the extra `onnx`). One
process; in each round every file runs twice, in an order drawn anew, so that whatever else the machine does hits all
alike; the second run is timed, as in a video, where a model finds its caches filled. Weights do not change the speed:
they are random, with batch statistics of images so that signals live.

`share_of_peak` is the rate of multiply-accumulates against that of one large int8 convolution, 28 x 28 x 512 to 512
channels, measured on one thread in the same rounds: what a core of this machine reaches at its best, times the threads.

Results: OUTPUT.csv, a line for each processor, file and number of threads; lines of other processors, architectures and
threads stay. The ratios depend on the processor. OUTPUT.png: those of this one.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_mobilenets as km
from keras_mobilenets.export import export_onnx, export_tflite
from keras_mobilenets.tflite import audit
from keras_mobilenets.tflite.runner import make_interpreter
from keras_mobilenets.utils import atomic_path

OURS, REFERENCE = "keras_mobilenets int8", "keras.applications int8"
PEAK = "one large convolution"
DRAWN = {
    OURS: ("keras_mobilenets, int8", "tab:red"),
    REFERENCE: ("keras.applications with tf.lite, int8", "tab:green"),
    "keras.applications float": ("keras.applications with tf.lite, float", "0.75"),
    "ONNX Runtime int8": ("ONNX Runtime, int8", "tab:blue"),
    "Google uint8": ("Google's files, uint8", "tab:orange"),
    "Google int8": ("Google's file, int8", "gold"),
}
WARM_UP = 10


@dataclass(frozen=True)
class Architecture:
    """A model to measure: builder, width and options, called alike here and in keras.applications; image size."""

    name: str
    builder: str
    alpha: float
    size: int
    published: dict[str, str] = dataclasses.field(default_factory=dict)
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def takes_pixels(self) -> bool:
        """MobileNetV3 normalizes inside."""
        return self.builder.startswith("MobileNetV3")

    def build(self, module: Any, batch_size: int | None = None) -> keras.Model:
        """The model with random weights through which signals live."""
        keras.utils.set_random_seed(0)
        inputs = keras.Input((self.size, self.size, 3), batch_size=batch_size)
        model = getattr(module, self.builder)(input_tensor=inputs, alpha=self.alpha, weights=None, **self.options)
        for layer in km.inline(model).layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.0  # the moving averages become the statistics of the one batch
            elif getattr(layer, "use_bias", False):
                # TensorFlow drops a bias of 0, and tf2onnx then fails to take transposes out of the graph.
                layer.bias.assign(np.linspace(-0.1, 0.1, layer.bias.shape[0]))
        for image in [self.images()] if batch_size is None else self.images()[:, None]:
            model(image, training=True)
        return model

    def images(self) -> np.ndarray:
        """Random images as the model takes them, smooth as photographs are."""
        coarse = np.random.default_rng(0).uniform(-1, 1, (8, 8, 8, 3)).astype("float32")
        images = keras.ops.convert_to_numpy(keras.ops.image.resize(coarse, (self.size, self.size)))
        return 127.5 * (images + 1) if self.takes_pixels else images


ARCHITECTURES = (
    Architecture("V1 0.25 128", "MobileNet", 0.25, 128, {"Google uint8": "mobilenet_v1_0.25_128_quant.tflite"}),
    Architecture("V1 0.5 160", "MobileNet", 0.5, 160, {"Google uint8": "mobilenet_v1_0.5_160_quant.tflite"}),
    Architecture("V1 1.0 224", "MobileNet", 1.0, 224),
    Architecture(
        *("V2 1.0 224", "MobileNetV2", 1.0, 224),
        {
            "Google uint8": "mobilenet_v2_1.0_224_quant.tflite",
            "Google int8": "tf2_mobilenet_v2_1.0_224_ptq.tflite",
        },
    ),
    Architecture("V3 Small 224", "MobileNetV3Small", 1.0, 224),
    Architecture("V3 Large 224", "MobileNetV3Large", 1.0, 224),
)


@dataclass(frozen=True)
class Result:
    """A line of the CSV."""

    processor: str
    architecture: str
    peer: str
    threads: int
    median_ms: float
    p10_ms: float
    ratio: float
    """Median latency against keras.applications' int8 file."""
    share_of_peak: float
    madds: int
    size_bytes: int
    partitions: int | None


def main() -> None:
    """Makes the files, runs them interleaved, writes the CSV and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("ondevice"), help="of CSV and plot, without suffix")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", help="architectures whose names contain one of these")
    parser.add_argument("--files", type=Path, help="folder to keep the files in, to be measured again")
    arguments = parser.parse_args()
    chosen = [one for one in ARCHITECTURES if not arguments.only or any(part in one.name for part in arguments.only)]
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.files or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for architecture in chosen:
            files = dict(files_of(architecture, folder))
            for threads in arguments.threads:
                results += measure(architecture.name, files, threads, arguments.rounds)
    write(arguments.output.with_suffix(".csv"), results)
    plot(arguments.output.with_suffix(".png"), results, arguments.threads[0])


def write(path: Path, results: list[Result]) -> None:
    """Writes the table, with what other runs measured."""
    new = [{name: str("" if one is None else one) for name, one in vars(result).items()} for result in results]
    found = list(csv.DictReader(path.open(newline=""))) if path.exists() else []
    lines = {tuple(line.values())[:4]: line for line in (*found, *new)}  # processor, architecture, peer, threads
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Result)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines.values())


def processor() -> str:
    """The name of this machine's processor, and the best of its instructions for products of 8 bits."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    about = dict(tuple(map(str.strip, line.split(":", 1))) for line in lines if ":" in line)
    flags = about.get("flags", about.get("Features", "")).split()
    best = next((one for one in ("amx_int8", "avx512_vnni", "avx_vnni", "avx2", "i8mm", "asimddp") if one in flags), "")
    return " ".join(part for part in (about.get("model name", platform.machine()), best) if part)


def files_of(architecture: Architecture, folder: Path) -> Iterator[tuple[str, Path]]:
    """Each peer's file, by the peer's name; what is in the folder is not made again."""
    makers: dict[str, Callable[[Path], Any]] = {
        OURS: lambda path: ours(architecture, path, "int8"),
        "keras_mobilenets float": lambda path: ours(architecture, path, None),
        REFERENCE: lambda path: path.write_bytes(applications(architecture, integer=True)),
        "keras.applications float": lambda path: path.write_bytes(applications(architecture, integer=False)),
        "ONNX Runtime float": lambda path: export_onnx(architecture.build(km), path, verbose=False),
        "ONNX Runtime int8": lambda path: onnx_integer(architecture.build(km), architecture.images(), path),
        PEAK: large_convolution,
    }
    for peer, make in makers.items():
        suffix = ".onnx" if peer.startswith("ONNX") else ".tflite"
        path = folder / (f"{architecture.name} {peer}".replace(" ", "_") + suffix)
        if not path.exists():
            print(f"making {path.name}", flush=True)
            make(path)
        yield peer, path
    published = Path(os.environ.get("KERAS_MOBILENETS_TESTDATA", "")) / "published"
    for peer, name in architecture.published.items():
        if (published / name).exists():
            yield peer, published / name


def ours(architecture: Architecture, path: Path, quantize: str | None) -> None:
    """This package's file."""
    model, images = architecture.build(km), architecture.images()
    export_tflite(model, path, quantize=quantize, calibration=images, strict=quantize == "int8", verbose=False)


def applications(architecture: Architecture, integer: bool) -> bytes:
    """keras.applications' file, as TensorFlow's guide to post-training quantization makes it."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(architecture.build(keras.applications, batch_size=1))
    if integer:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in architecture.images())
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
    return converter.convert()


def onnx_integer(model: keras.Model, images: np.ndarray, path: Path) -> None:
    """ONNX Runtime's static quantization: unsigned feature maps, signed kernels per channel, as it advises for x86."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.batches = iter([{"image": image[None]} for image in images])

        def get_next(self):
            return next(self.batches, None)

    with tempfile.TemporaryDirectory() as folder:
        whole, prepared = Path(folder) / "float.onnx", Path(folder) / "prepared.onnx"
        export_onnx(model, whole, verbose=False)
        quant_pre_process(str(whole), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            *(str(prepared), str(path), Reader()),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )


def large_convolution(path: Path) -> None:
    """A file with nothing but a pointwise convolution that keeps the arithmetic units busy."""
    inputs = keras.Input((28, 28, 512))
    model = keras.Model(inputs, keras.layers.Conv2D(512, 1, use_bias=False)(inputs))
    images = np.random.default_rng(0).uniform(-1, 1, (4, 28, 28, 512)).astype("float32")
    export_tflite(model, path, quantize="int8", input_dtype="int8", calibration=images, verbose=False)


def runner(path: Path, threads: int) -> Callable[[], Any]:
    """A function that computes one image."""
    if path.suffix == ".tflite":
        interpreter = make_interpreter(path.read_bytes(), path.name, threads=threads)
        return interpreter.invoke
    session = onnx_session(path, threads)
    (entry,) = session.get_inputs()
    image = {entry.name: np.zeros([1, *entry.shape[1:]], np.float32)}
    return lambda: session.run(None, image)


def onnx_session(path: Path, threads: int) -> Any:
    """What runs a file of ONNX."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Or its threads keep turning for a while, and take a core from whoever runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def measure(architecture: str, files: dict[str, Path], threads: int, rounds: int) -> list[Result]:
    """Runs all files of an architecture in turns, and prints a line for each."""
    runners = {peer: runner(path, 1 if peer == PEAK else threads) for peer, path in files.items()}
    times: dict[str, list[float]] = {peer: [] for peer in runners}
    generator = np.random.default_rng(0)
    for turn in range(WARM_UP + rounds):
        for peer in generator.permutation(list(runners)):
            runners[peer]()
            start = time.perf_counter_ns()
            runners[peer]()
            if turn >= WARM_UP:
                times[peer].append((time.perf_counter_ns() - start) / 1e6)
    medians = {peer: float(np.median(values)) for peer, values in times.items()}
    audits = {peer: audit(path) for peer, path in files.items() if path.suffix == ".tflite"}
    madds = audits[OURS].madds
    peak = threads * audits[PEAK].madds / medians[PEAK]
    results = []
    for peer, values in times.items():
        found = audits.get(peer)
        if peer == PEAK:
            continue
        result = Result(
            *(
                processor(),
                architecture,
                peer,
                threads,
                round(medians[peer], 4),
                round(float(np.quantile(values, 0.1)), 4),
            ),
            ratio=round(medians[peer] / medians[REFERENCE], 3),
            share_of_peak=round(madds / medians[peer] / peak, 3),
            madds=madds,
            size_bytes=files[peer].stat().st_size,
            partitions=found.partitions if found else None,
        )
        results.append(result)
        print(
            f"{architecture:14}{peer:26}{threads} threads {result.median_ms:8.3f} ms  {result.ratio:.2f}x", flush=True
        )
    print(f"{'':14}peak {peak / 1e6:.0f} GMAC/s")
    return results


def plot(path: Path, results: list[Result], threads: int) -> None:
    """Bars: latency of the integer files, and of the float one, against keras.applications' int8 file."""
    import matplotlib.pyplot as plt

    chosen = [one for one in results if one.threads == threads]
    names = list(dict.fromkeys(one.architecture for one in chosen))
    figure, axes = plt.subplots(figsize=(11, 5), layout="constrained")
    width = 0.85 / len(DRAWN)
    for number, (peer, (label, color)) in enumerate(DRAWN.items()):
        bars = {one.architecture: one for one in chosen if one.peer == peer}
        places = [names.index(name) + (number - len(DRAWN) / 2 + 0.5) * width for name in bars]
        drawn = axes.bar(places, [one.ratio for one in bars.values()], width, label=label, color=color)
        axes.bar_label(drawn, [f"{one.median_ms:.2f}" for one in bars.values()], fontsize=9, rotation=90, padding=3)
    axes.margins(y=0.12)
    axes.axhline(1.0, color="0.6", linewidth=0.8, zorder=0)
    axes.set_xticks(range(len(names)), names, fontsize=11)
    axes.set_ylabel("time against keras.applications in int8", fontsize=11)
    axes.set_title(f"One picture on {threads} thread{'s' * (threads > 1)}: lower is faster; milliseconds on the bars")
    axes.legend(fontsize=11)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
