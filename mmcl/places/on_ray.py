"""Jobs as tasks of Ray: of the cluster that RAY_ADDRESS names, or else of one that is started on this machine."""

from __future__ import annotations

import os
import sys
from typing import Any

from mmcl.common.errors import UserError
from mmcl.places.base import Handle, Place
from mmcl.places.job import Failure, Job
from mmcl.places.worker import Task

POLL = 0.2  # seconds between two looks at a task
OBJECTS = 100 << 20  # bytes of shared memory for Ray's objects; tasks return a line of text
CARRIED = ("PYTHONPATH", "HF_HOME", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM")  # from here to the nodes


class OnRay(Place):
    """A cluster.

    Args:
        at_once: tasks that Ray has at the same time; None: all.
        retries: see :class:`Place`.
        cpus: cores of a task; each of its processes uses as many threads.
        gpus: GPUs of a task, or the share of one.

    Raises:
        UserError: no Ray, no cluster at that address, or a cluster of this machine that is too small.
    """

    def __init__(self, at_once: int | None, retries: int, cpus: int, gpus: float) -> None:
        super().__init__(at_once, retries, POLL)
        self.ray, address = _ray(), os.environ.get("RAY_ADDRESS")
        self.processes = max(1, int(gpus))
        carried = {name: os.environ[name] for name in CARRIED if name in os.environ}
        self.variables = {**carried, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(cpus))}
        # What Ray would begin again by itself is begun again by who asked for it, and said: in all places alike.
        self.function = self.ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_do)
        try:
            if address:
                self.ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            else:
                self.ray.init(
                    address="local", include_dashboard=False, object_store_memory=OBJECTS, log_to_driver=False,
                    logging_level="ERROR",
                )  # fmt: skip
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"no Ray cluster at {address or 'this machine'}: {_line(error)}") from error
        self._check_size({"CPU": cpus, "GPU": gpus}, bool(address))

    def _check_size(self, wanted: dict[str, float], may_grow: bool) -> None:
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if any(all(node.get(kind, 0) >= amount for kind, amount in wanted.items()) for node in nodes):
            return
        words = f"no node of the Ray cluster has {wanted['CPU']:g} cores and {wanted['GPU']:g} GPUs for one job"
        if not may_grow:
            self.close()
            raise UserError(f"{words}: --cpus, --gpus")
        print(f"warning: {words}; waiting for one to join", file=sys.stderr)

    def begin(self, job: Job) -> RayHandle:
        """Hand it to Ray, which queues it until a node has room."""
        task = Task(job, self.variables, self.processes)
        return RayHandle(job, self.ray, self.function.options(name=f"mmcl {job.name}").remote(task))

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self.ray.shutdown()


def _do(task: Task) -> Failure | None:
    """The function that Ray calls on a node."""
    return task()


class RayHandle(Handle):
    """A task of Ray."""

    def __init__(self, job: Job, ray: Any, result: Any) -> None:
        self.job, self.ray, self.result = job, ray, result

    def working(self) -> bool:
        """Whether it waits or runs."""
        return not self.ray.wait([self.result], timeout=0)[0]

    def failure(self) -> Failure | None:
        """What it returned, or how Ray lost it."""
        errors = self.ray.exceptions
        try:
            failure: Failure | None = self.ray.get(self.result)
        except (errors.TaskCancelledError, errors.RayTaskError) as error:
            return Failure(_line(error))
        except errors.RayError as error:  # the worker, or its node
            return Failure(f"{type(error).__name__}: {_line(error)}", ended_from_outside=True)
        return failure

    def stop(self, force: bool) -> None:
        """Interrupt the worker, which lets its process save; by force, kill it."""
        self.ray.cancel(self.result, force=force)


def _ray() -> Any:
    """The package, told to keep to itself before it is imported: no statistics, no port that others can reach."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not os.environ.get("RAY_ADDRESS"):
        # By this, Ray uses the loopback address for a cluster of one machine, as it does on Windows and macOS anyway.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError('--on ray needs Ray, not installed here: run `pip install "mmcl[ray]"`') from error
    return ray


def _line(error: Exception) -> str:
    """What there is to say of an error of Ray, which says much, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[0] if lines else type(error).__name__:.300}"
