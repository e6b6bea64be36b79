"""A page that runs a `.tflite` file in the browser: static files for any host, and for none.

What the page does is in templates/web: `app.js` shows, `image.js` makes pixels of pictures as `read_image` does,
`model.js` runs the file, and one module in `tasks/` knows what the outputs of its task mean:

    export function answer        (outputs by name, model.json) -> what the model says
    export function show          (that, model.json, {result, picture, overlay}) -> nothing: fills in the page
"""

from __future__ import annotations

import base64
import hashlib
import json

from keras_mobilenets.apps.about import Deployed
from keras_mobilenets.apps.runtime import DTYPES, IMPORTS, write_runtime
from keras_mobilenets.apps.writing import TEMPLATES, Folder, as_json, fill, new_folder
from keras_mobilenets.tasks.detection import Detection
from keras_mobilenets.tflite.edit.slim import pack
from keras_mobilenets.tflite.file import unpack

TASKS = tuple(sorted(path.stem for path in (TEMPLATES / "web" / "tasks").glob("*.js")))


def write_web(model: Deployed, output: Folder, *, runtime: Folder | None = None) -> None:
    """Writes the page: a folder with everything that it needs, the file and the runtime included.

    Args:
        model: what it runs.
        output: the folder, which is new or empty.
        runtime: a folder that has LiteRT.js; None asks npm.

    Raises:
        FileExistsError: something would be lost.
        FileNotFoundError: the runtime cannot be had.
        ValueError: a browser cannot run the file, or the page knows nothing of its task.
    """
    about = model.about()
    _check(about)
    import_map = json.dumps({"imports": IMPORTS})
    digest = base64.b64encode(hashlib.sha256(import_map.encode()).digest()).decode()
    with new_folder(output) as folder:
        fill("web", folder, about=about, import_map=import_map, import_map_hash=f"sha256-{digest}")
        for path in (folder / "tasks").iterdir():
            if path.stem != about["task"]:
                path.unlink()
        (folder / "model.json").write_text(as_json(about), encoding="utf-8")
        (folder / "model.tflite").write_bytes(_with_sizes(model))
        write_runtime(folder / "runtime", runtime)


def _with_sizes(model: Deployed) -> bytes:
    """The file's content; where its last operation chooses boxes, as many as it says: LiteRT.js asks beforehand."""
    outputs = model.file.graph.outputs
    if not isinstance(model.task, Detection) or all(model.file.graph.tensors[index].shape for index in outputs):
        return model.file.content
    most, flat = model.task.suppression.most, unpack(model.file.content)
    for index, shape in zip(outputs, ([1, most, 4], [1, most], [1, most], [1]), strict=True):
        flat.subgraphs[0].tensors[index].shape = shape
    return pack(flat)


def _check(about: dict) -> None:
    if about["task"] not in TASKS:
        raise ValueError(f"The page shows {', '.join(TASKS)}, and this file is for {about['task']}")
    for side, tensors in (("takes", [about["input"]]), ("gives", about["outputs"])):
        for one in tensors:
            if one["dtype"] not in DTYPES:
                raise ValueError(
                    f"LiteRT.js knows {', '.join(DTYPES)}, and this file {side} {one['dtype']}. Of this package's "
                    "files, those of `--input-dtype uint8`, which is the default, and of float32 fit."
                )
