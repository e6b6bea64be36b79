"""Several devices, and several machines: each step's batch is split among them, and the weights are the same."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_mobilenets.layers import inline
from keras_mobilenets.layers.replicas import processes

PORT = 12345  # of process 0, where only its host is told
MARKS = ("KERAS_DISTRIBUTION_JOB_ADDRESSES", "COORDINATOR_ADDRESS", "SLURM_STEP_NODELIST")


@dataclasses.dataclass(frozen=True)
class Job:
    """A process among those of a job.

    Attributes:
        address: host:port of process 0; None where JAX finds it.
        processes: how many there are.
        process: the number of this one, from 0.
    """

    address: str | None
    processes: int
    process: int


def job(environment: Mapping[str, str] = os.environ) -> Job | None:
    """Reads off the environment which job this process is part of; None for a process alone.

    Understood are the variables of Keras (`KERAS_DISTRIBUTION_*`), those of Kubernetes jobs as Kubeflow's JAXJob sets
    them (`COORDINATOR_ADDRESS`, `COORDINATOR_PORT`, `NUM_PROCESSES`, `PROCESS_ID`; an indexed job's own
    `JOB_COMPLETION_INDEX` stands for the last), and that Slurm's `srun` has started it, whose address JAX finds itself.

    Args:
        environment: names and values.

    Raises:
        ValueError: variables contradict each other or lack one.

    Example:

    >>> job({"COORDINATOR_ADDRESS": "trainer-0", "NUM_PROCESSES": "4", "JOB_COMPLETION_INDEX": "2"})
    Job(address='trainer-0:12345', processes=4, process=2)
    """
    try:
        found = _read(environment)
    except (KeyError, ValueError) as error:
        raise ValueError(f"The environment describes a job, but not completely: {error!r}") from error
    if found is not None and not 0 <= found.process < found.processes:
        raise ValueError(f"Process {found.process} cannot be one of {found.processes}")
    return found if found is not None and found.processes > 1 else None


def _read(environment: Mapping[str, str]) -> Job | None:
    keras_address, address, slurm = (environment.get(mark) for mark in MARKS)
    if keras_address is not None:
        count, number = (f"KERAS_DISTRIBUTION_{name}" for name in ("NUM_PROCESSES", "PROCESS_ID"))
        address = keras_address.split(",")[0]
    elif address is not None:
        count, number = "NUM_PROCESSES", "PROCESS_ID" if environment.get("PROCESS_ID") else "JOB_COMPLETION_INDEX"
        address = address if ":" in address else f"{address}:{environment.get('COORDINATOR_PORT', PORT)}"
    elif slurm is not None:
        count, number = "SLURM_NTASKS", "SLURM_PROCID"
    else:
        return None
    return Job(address, int(environment[count]), int(environment[number]))


def without_job(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a process alone."""
    return {name: value for name, value in environment.items() if name not in MARKS}


@contextlib.contextmanager
def distribute(devices: int | str = "all") -> Iterator[int]:
    """Splits the training in its block among devices, and among the machines of a job.

    Models have to be made, loaded and trained inside. On TensorFlow it is `tf.distribute.MirroredStrategy` over the
    devices of one machine; on JAX `keras.distribution.DataParallel`, over those of all processes of the job that the
    environment describes (see `job`), and then the first thing that a process does. Weights, ranges and statistics
    become what one device makes of the whole batch.

    Args:
        devices: how many, or "all"; of a job of several processes always all.

    Yields:
        How many there are.

    Raises:
        ValueError: there are not so many devices, or the backend cannot do it.
        ConnectionError: the processes do not find each other, or one of them is gone.

    Example:

    >>> with distribute() as count:  # doctest: +SKIP
    ...     fit(build_classifier(classes=5, image_size=160), data)
    """
    if devices != "all" and not (isinstance(devices, int) and devices > 0):
        raise ValueError(f'`devices` must be a positive number or "all". Received: devices={devices!r}')
    backend, found = keras.backend.backend(), job()
    if found is not None and backend != "jax":
        raise ValueError(
            f"This is one of {found.processes} processes: set KERAS_BACKEND=jax. Keras' `fit` fails under "
            "MultiWorkerMirroredStrategy (github.com/keras-team/keras/issues/20585)"
        )
    if backend == "jax":
        if found is not None and not _jax().distributed.is_initialized():  # asking for more would start JAX alone
            _join(found)
        names = _first(keras.distribution.list_devices(), "all" if found else devices)
        with keras.distribution.DataParallel(devices=names, auto_shard_dataset=False).scope(), _bound_together():
            yield len(names)
    elif backend == "tensorflow":
        import tensorflow as tf

        logical = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        names = _first([device.name for device in logical], devices)
        with tf.distribute.MirroredStrategy(names).scope():
            yield len(names)
    else:
        raise ValueError(f"Several devices need the backend TensorFlow or JAX, this is {backend}")


def _first(names: list[str], devices: int | str) -> list[str]:
    count = len(names) if devices == "all" else int(devices)
    if count > len(names):
        raise ValueError(f"There are {len(names)} devices, {', '.join(names[:8])}. Received: devices={count}")
    return names[:count]


def _join(found: Job) -> None:
    """Waits until all processes of the job are there."""
    try:
        keras.distribution.initialize(found.address, found.processes, found.process)
    except RuntimeError as error:
        raise ConnectionError(
            f"Process {found.process} of {found.processes} has not found the others at {found.address}: {error}"
        ) from error
    if threading.current_thread() is threading.main_thread():
        # JAX has put a handler of its own over that of Python, with which the process would live on.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def part() -> None:
    """Ends the job, when all processes have come here or to their end; each is alone from now on."""
    if processes() > 1:
        _jax().distributed.shutdown()


def process() -> int:
    """The number of this one among them; 0 writes what is written once."""
    return 0 if keras.backend.backend() != "jax" else _jax().process_index()


def gathered(number: Any) -> np.ndarray:
    """What each process has here, in a new first axis; all wait for each other."""
    if processes() == 1:
        return np.array([number])
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(np.array(number))


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """The block runs in process 0 before it runs in the others."""
    if process():
        gathered(0)
    yield
    if not process():
        gathered(0)


def agree(position: tuple[int, int]) -> None:
    """Waits until all processes have come here, and checks that all go on from the same position."""
    found = gathered(position).tolist()
    if any(one != found[0] for one in found):
        raise ValueError(f"The processes see other checkpoints, {found}: their folder must be one that all share")


@contextlib.contextmanager
def _bound_together() -> Iterator[None]:
    """No process of a job waits for one that is gone: an error of one ends all, and they say why."""
    try:
        yield
    except FloatingPointError:
        raise  # comes to all of them
    except Exception as error:
        if processes() == 1:
            raise
        atexit.register(_leave)
        if isinstance(error, _jax().errors.JaxRuntimeError):
            raise ConnectionError(
                f"Process {process()} has lost another one of its job: start all of them again, and training goes on "
                f"from the last checkpoint ({str(error).splitlines()[0]})"
            ) from error
        raise


def _leave() -> None:
    """Ends this process before JAX does, which would wait minutes for those that wait for this one."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _jax() -> Any:
    import jax

    return jax


def replicas() -> int:
    """Among how many devices a batch is split."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
            raise ValueError(
                "Keras' `fit` fails under MultiWorkerMirroredStrategy (github.com/keras-team/keras/issues/20585): "
                "set KERAS_BACKEND=jax, and train inside of keras_mobilenets.training.distribute()"
            )
        return tf.distribute.get_strategy().num_replicas_in_sync
    distribution = keras.distribution.distribution()
    return 1 if distribution is None else distribution.num_model_replicas


@contextlib.contextmanager
def whole_batches(model: keras.Model) -> Iterator[None]:
    """Has batch normalization take its statistics over all replicas on TensorFlow, while the block runs."""
    apart = [
        layer
        for layer in inline(model).layers
        if isinstance(layer, keras.layers.BatchNormalization) and not layer.synchronized
    ]
    if keras.backend.backend() != "tensorflow" or replicas() == 1:
        apart = []
    for layer in apart:
        layer.synchronized = True
    try:
        yield
    finally:
        for layer in apart:
            layer.synchronized = False  # in the config of a saved model no other backend takes it
