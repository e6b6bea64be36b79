"""A service that answers about pictures by HTTP, for a Raspberry Pi or any Linux machine.

Starlette on uvicorn: the lightest well-kept pair that refuses a body while it comes in; all of it is pure Python, so
that it installs on every device that LiteRT has a wheel for. TensorFlow and this package are not needed there: pictures
are read, and boxes chosen, by copies of this package's own modules.
"""

from __future__ import annotations

import shutil

from keras_mobilenets.apps.about import Deployed
from keras_mobilenets.apps.writing import TEMPLATES, Folder, as_json, fill, new_folder
from keras_mobilenets.data import images
from keras_mobilenets.tasks import boxes

TASKS = tuple(sorted(path.stem for path in (TEMPLATES / "pi" / "tasks").glob("*.py")))


def write_pi(model: Deployed, output: Folder) -> None:
    """Writes the service: a folder to copy to the device.

    Args:
        model: what it runs.
        output: the folder, which is new or empty.

    Raises:
        FileExistsError: something would be lost.
        ValueError: the service knows nothing of the file's task.
    """
    about = model.about()
    if about["task"] not in TASKS:
        raise ValueError(f"The service answers for {', '.join(TASKS)}, and this file is for {about['task']}")
    with new_folder(output) as folder:
        fill("pi", folder, about=about)
        (folder / "tasks" / f"{about['task']}.py").rename(folder / "task.py")
        shutil.rmtree(folder / "tasks")
        for module in (images, boxes) if about["task"] == "detection" else (images,):
            shutil.copy(str(module.__file__), folder)
        (folder / "model.json").write_text(as_json(about), encoding="utf-8")
        (folder / "model.tflite").write_bytes(model.file.content)
