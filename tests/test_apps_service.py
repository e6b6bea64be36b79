"""The service of `keras-mobilenets app pi` run in full: load, bad pictures, large bodies, SIGKILL, and a memory bound.

`bash tests/environments/run service` makes an environment of what the service asks for, and runs this.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import itertools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from export_models import images, living
from PIL import Image
from runs import other_python
from typer.testing import CliRunner

from keras_mobilenets import LRASPP, MobileNet, SSDLite
from keras_mobilenets.cli import app
from keras_mobilenets.cli.models import tflite_model
from keras_mobilenets.data import read_image
from keras_mobilenets.export import export_tflite
from keras_mobilenets.tasks import Detection, Embedding, Segmentation
from keras_mobilenets.tflite import TFLiteModel

CLIENTS, REQUESTS = 50, 10
# As systemd does it with Restart=always; systemd itself does not run in a container.
SUPERVISOR = "import subprocess, sys, time\nwhile True:\n    subprocess.run(sys.argv[1:])\n    time.sleep(.2)"
LARGEST_BYTES, LARGEST_PIXELS = 3_000_000, 12_000_000
MEMORY = 400e6  # of the 512 MB of the smallest 64-bit Pi


class Running:
    """The service behind a supervisor."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        settings = {"LARGEST_BYTES": LARGEST_BYTES, "LARGEST_PIXELS": LARGEST_PIXELS, "SECONDS_TO_SEND": 2}
        environment = {**os.environ, **{name: str(value) for name, value in settings.items()}, "PORT": str(self.port)}
        command = [sys.executable, "-c", SUPERVISOR, other_python("service"), "service.py"]
        environment["MALLOC_ARENA_MAX"] = "2"  # as the unit file has it
        environment.pop("PYTHONSAFEPATH", None)  # of the tests: here modules lie beside the program
        self.supervisor = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self.wait()
        except TimeoutError:
            self.stop()
            raise

    def ask(self, method="GET", path="/health", body=None, **options):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, **options)
            response = connection.getresponse()
            content = response.read()
            return response.status, json.loads(content) if "json" in response.headers["content-type"] else content

    def predict(self, body, **options):
        return self.ask("POST", "/predict", body, **options)

    def wait(self, seconds=60):
        for _ in range(seconds * 20):
            with contextlib.suppress(OSError):
                return self.ask()
            time.sleep(0.05)
        raise TimeoutError("the service does not answer")

    @property
    def process(self):
        children = f"/proc/{self.supervisor.pid}/task/{self.supervisor.pid}/children"
        with open(children) as file:
            return int(file.read().split()[0])

    def memory(self, kind="VmHWM"):
        with open(f"/proc/{self.process}/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(kind))

    def stop(self):
        os.killpg(self.supervisor.pid, signal.SIGKILL)
        self.supervisor.wait()


@pytest.fixture(scope="module")
def model(testdata):
    return testdata / "published" / "mobilenet_v1_0.25_128_quant.tflite"


@pytest.fixture(scope="module")
def service(model, tmp_path_factory):
    other_python("service")
    folder = tmp_path_factory.mktemp("apps") / "service"
    result = CliRunner().invoke(app, ["app", "pi", str(model), str(folder)])
    assert result.exit_code == 0, result.output
    running = Running(folder)
    yield running
    running.stop()


def encoded(pixels, kind, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def of_declared_size(width, height):
    """A PNG of a few bytes that says it is large."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_fifty_clients_get_the_answers_of_the_runtime(service, model, testdata):
    paths = sorted((testdata / "data" / "imagenet_sample").glob("*.jpg"))[::10]
    here = TFLiteModel(model)
    scores = [here.predict(read_image(path, here.input_shape[:2])[None])[0] for path in paths]

    def client(number):
        took = []
        for turn in range(REQUESTS):
            index = (number * REQUESTS + turn) % len(paths)
            began = time.perf_counter()
            status, said = service.predict(paths[index].read_bytes())
            took.append(time.perf_counter() - began)
            assert status == 200, said
            best = said["answers"][0]
            assert (best["name"], best["score"]) == (here.labels[scores[index].argmax()], scores[index].max())
        return took

    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        took = sorted(itertools.chain(*pool.map(client, range(CLIENTS))))
    seconds = time.perf_counter() - began
    print(
        f"\n{len(took)} requests of {CLIENTS} clients: {len(took) / seconds:.0f} a second, median "
        f"{took[len(took) // 2] * 1e3:.0f} ms, 99 % within {took[len(took) * 99 // 100] * 1e3:.0f} ms"
    )


PHOTO = encoded(np.random.default_rng(0).integers(0, 255, (300, 200, 3), np.uint8), "JPEG")


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 422, "known format"),
        (b"not a picture", 422, "known format"),
        (PHOTO[: len(PHOTO) // 2], 422, "truncated"),
        (PHOTO[:30], 422, ""),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 422, "known format"),
        (of_declared_size(5_000, 5_000), 413, "pixels"),
        (of_declared_size(60_000, 60_000), 413, "pixels"),
        (of_declared_size(100, 100), 422, ""),
        (bytes(LARGEST_BYTES + 1), 413, "bytes"),
        (encoded(np.zeros((50, 40), np.uint8), "PNG"), 200, None),
        (encoded(np.zeros((50, 40, 4), np.uint8), "WEBP"), 200, None),
    ],
    ids=[
        "empty",
        "text",
        "half",
        "head",
        "postscript",
        "25-megapixels",
        "bomb",
        "no-data",
        "3-megabytes",
        "grey",
        "transparent",
    ],
)
def test_bad_pictures(service, body, status, message):
    found, said = service.predict(body)
    assert found == status
    assert message is None or message in said["error"]


def test_a_body_without_an_end_is_cut_off(service):
    def endless():
        while True:
            yield bytes(100_000)

    with contextlib.suppress(OSError):  # it hangs up while it is sent more
        status, said = service.predict(endless(), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
        assert status == 413, said
    assert service.ask()[0] == 200


def test_slow_clients_keep_nobody_waiting(service):
    head = b"POST /predict HTTP/1.1\r\nHost: pi\r\nContent-Length: 1000\r\n\r\nx"
    slow = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(20)]
    for one in slow:
        one.sendall(head)
    began = time.perf_counter()
    assert service.predict(PHOTO)[0] == 200
    assert time.perf_counter() - began < 15  # 20 slow ones in 8 places, 2 seconds each
    for one in slow:
        one.settimeout(30)
        assert b" 408 " in one.recv(1000)
        one.close()


def test_wrong_addresses_and_no_camera(service):
    assert service.ask("GET", "/predict")[0] == 405
    assert service.ask("GET", "/../service.py")[0] == 404
    assert b"<title>" in service.ask("GET", "/")[1]
    assert service.ask("GET", "/model")[1]["task"] == "classification"
    status, said = service.ask("GET", "/camera")
    assert status == 503 and "no camera" in said["error"]


def test_comes_back_after_sigkill(service):
    before = service.process
    os.kill(before, signal.SIGKILL)
    began = time.perf_counter()
    time.sleep(0.3)
    service.wait()
    print(f"\nanswers {time.perf_counter() - began:.1f} s after SIGKILL")
    assert service.process != before
    assert service.predict(PHOTO)[0] == 200


def test_memory_stays_bounded(service):
    """50 clients with the largest pictures that are let in, and with ones that are too large."""
    random = np.random.default_rng(0)
    large = encoded(np.kron(random.integers(0, 255, (30, 40, 3), np.uint8), np.ones((100, 100, 1), np.uint8)), "JPEG")
    too_large = bytes(LARGEST_BYTES + 1)
    resting = service.memory("VmRSS")
    with ThreadPoolExecutor(CLIENTS) as pool:
        found = [*pool.map(lambda index: service.predict(too_large if index % 4 == 0 else large)[0], range(100))]
    assert {*found} == {200, 413}
    peak = service.memory()
    print(f"\n{resting / 1e6:.0f} MB at rest, {peak / 1e6:.0f} MB at most")
    assert peak < MEMORY


TASKS = ["detection", "published detection", "segmentation", "embedding"]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_answers_as_in_python(task, testdata, tmp_path):
    """Without HTTP: the service's own module in its environment, beside the task here."""
    python = other_python("service")
    path = file_of(task, testdata, tmp_path)
    assert CliRunner().invoke(app, ["app", "pi", str(path), str(tmp_path / "service")]).exit_code == 0
    picture = sorted((testdata / "data" / "coco256" / "images").rglob("*.jpg"))[100]
    code = f"import json, model; print(json.dumps(model.Model()(open({str(picture)!r}, 'rb').read())))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    command = [python, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path / "service", env=environment, check=True, capture_output=True, text=True
    )
    said, here = json.loads(done.stdout), tflite_model(path)
    answer = here.predict(here.read(picture)[None])[0]
    if task == "embedding":
        np.testing.assert_allclose(said["vector"], answer, atol=1e-6)  # float32
        return
    expected = here.best(answer, 100)
    assert len(expected) > 0 and [one["name"] for one in said["answers"]] == [one["name"] for one in expected]
    # A mask here is as large as the model's input, there as the model gives it: shares differ by the pixels of edges.
    tolerance = 0.02 if task == "segmentation" else 1e-6
    for one, other in zip(said["answers"], expected, strict=True):
        assert abs(one["score"] - other["score"]) <= tolerance
        np.testing.assert_allclose(one.get("box", ()), other.get("box", ()), atol=1e-6)


def file_of(task, testdata, folder):
    if task == "published detection":
        return testdata / "published" / "ssd_mobilenet_v1_coco_300_quant.tflite"
    keras.utils.set_random_seed(0)
    options = {"alpha": 0.35, "backbone_weights": None}
    if task == "detection":
        model, made = SSDLite("MobileNetV2", (96, 96, 3), classes=3, **options), Detection(3, (96, 96), alpha=0.35)
    elif task == "segmentation":
        model, made = LRASPP("MobileNetV2", (96, 96, 3), classes=4, **options), Segmentation(4)
    else:
        trunk = MobileNet((96, 96, 3), alpha=0.25, include_top=False, pooling="avg", weights=None)
        vector = keras.layers.Dense(16, name="embedding")(trunk.output)
        model, made = keras.Model(trunk.input, {"embedding": vector}), Embedding(16)
    path = folder / "model.tflite"
    export_tflite(
        living(model, images(16, 96)),
        path,
        task=made,
        verbose=False,
        **({"decoded": False} if task == "detection" else {}),
    )
    return path
