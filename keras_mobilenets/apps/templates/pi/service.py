"""Answers about pictures by HTTP: POST a picture to /predict, or GET /camera. See README.md.

However many ask, memory is bounded: a request waits for a place before its picture is read, and a picture is refused by
its size in bytes while it comes in, and by its pixels before it is decoded.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import time
from typing import Any

import anyio.to_thread
import uvicorn
from images import BrokenImage
from model import ABOUT, HERE, Model
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Route


def setting(name: str, default: int) -> int:
    """A number from the environment, where the unit file can set it."""
    return int(os.environ.get(name, default))


HOST = os.environ.get("HOST", "127.0.0.1")
PORT = setting("PORT", 8000)
THREADS = setting("THREADS", 2)  # that compute the model
LARGEST_BYTES = setting("LARGEST_BYTES", 10_000_000)
LARGEST_PIXELS = setting("LARGEST_PIXELS", 25_000_000)
READING = setting("READING", 8)  # pictures in memory at once, as files
DECODING = setting("DECODING", 2)  # and as pixels
WAITING = setting("WAITING", 200)  # requests that may wait; more are sent away at once
SECONDS_TO_SEND = setting("SECONDS_TO_SEND", 20)
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]  # Pillow reads more, some by running other programs


class Service:
    """The places that requests wait for, and the model that answers them."""

    def __init__(self) -> None:
        self.model = Model(THREADS)
        self.reading = asyncio.Semaphore(READING)
        self.decoding = anyio.CapacityLimiter(DECODING)
        self.requests = 0
        self.camera: Any = None

    async def predict(self, request: Request) -> JSONResponse:
        async with self.place():
            picture = await body(request)
            return await self.answer(picture)

    async def from_camera(self, request: Request) -> JSONResponse:
        async with self.place():
            return await self.answer(await anyio.to_thread.run_sync(self.photograph, limiter=self.decoding))

    async def answer(self, picture: Any) -> JSONResponse:
        began = time.perf_counter()
        try:
            said = await anyio.to_thread.run_sync(self.look, picture, limiter=self.decoding)
        except BrokenImage as error:
            raise HTTPException(422, str(error)) from None
        return JSONResponse({**said, "ms": round((time.perf_counter() - began) * 1e3, 1)})

    def look(self, picture: Any) -> dict[str, Any]:
        if isinstance(picture, bytes):
            check(picture)
        return self.model(picture)

    def photograph(self) -> Any:
        """A frame of the Raspberry Pi's camera."""
        if self.camera is None:
            try:
                from picamera2 import Picamera2

                camera = Picamera2()
                camera.configure(camera.create_still_configuration({"format": "BGR888", "size": (1280, 960)}))
                camera.start()
            except (ImportError, RuntimeError, IndexError) as error:
                raise HTTPException(503, f"no camera: {error}") from None
            self.camera = camera
        return self.camera.capture_array()

    @contextlib.asynccontextmanager
    async def place(self) -> Any:
        if self.requests >= WAITING:
            raise HTTPException(503, "too many requests wait", {"Retry-After": "1"})
        self.requests += 1
        try:
            async with self.reading:
                yield
        finally:
            self.requests -= 1


async def body(request: Request) -> bytes:
    """What was sent, as long as it is not too much and does not take too long."""
    if int(request.headers.get("content-length") or 0) > LARGEST_BYTES:
        raise HTTPException(413, f"a picture may have {LARGEST_BYTES:,} bytes", {"Connection": "close"})
    received = bytearray()
    try:
        async with asyncio.timeout(SECONDS_TO_SEND):
            async for part in request.stream():
                received += part
                if len(received) > LARGEST_BYTES:
                    raise HTTPException(413, f"a picture may have {LARGEST_BYTES:,} bytes", {"Connection": "close"})
    except TimeoutError:
        message = f"a picture must arrive within {SECONDS_TO_SEND} seconds"
        raise HTTPException(408, message, {"Connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(400, "the picture was not sent to its end") from None
    return bytes(received)


def check(picture: bytes) -> None:
    """Refuses what is too large before any of it is decoded.

    Raises:
        BrokenImage: it is in no format that is read here.
    """
    try:
        with Image.open(io.BytesIO(picture), formats=FORMATS) as opened:
            width, height = opened.size
    except Image.DecompressionBombError:
        width, height = LARGEST_PIXELS, 2
    except Exception:  # of damaged headers Pillow raises whatever happens
        raise BrokenImage(f"not a picture in a known format ({', '.join(FORMATS)})") from None
    if width * height > LARGEST_PIXELS:
        raise HTTPException(413, f"a picture may have {LARGEST_PIXELS:,} pixels")


async def failed(request: Request, error: Exception) -> JSONResponse:
    """Errors in the form of answers."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def index(request: Request) -> FileResponse:
    """The page."""
    return FileResponse(HERE / "index.html")


async def health(request: Request) -> JSONResponse:
    """That it runs."""
    return JSONResponse({"status": "ok", "name": ABOUT["name"], "task": ABOUT["task"]})


async def about(request: Request) -> JSONResponse:
    """What is known of the file."""
    return JSONResponse(ABOUT)


def make() -> Starlette:
    """The application, for any ASGI server; run one process of it."""
    service = Service()
    routes = [
        Route("/", index),
        Route("/health", health),
        Route("/model", about),
        Route("/camera", service.from_camera),
        Route("/predict", service.predict, methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: failed})


if __name__ == "__main__":
    uvicorn.run(make(), host=HOST, port=PORT, log_level="warning", timeout_keep_alive=5, limit_concurrency=2 * WAITING)
