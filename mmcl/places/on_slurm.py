"""Jobs as jobs of Slurm, through submitit; ``cluster=local`` runs them on this machine, to try things out."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmcl.common.errors import UserError
from mmcl.places.base import Handle, Place
from mmcl.places.job import Failure, Job
from mmcl.places.worker import Task

POLL = 1.0  # seconds between two looks at a job
MINUTES = 1440  # that a job may take, where nothing is said; afterwards it queues again and goes on
TIMEOUTS = 20  # how often it does
CLUSTERS = ("slurm", "local")


class OnSlurm(Place):
    """A cluster that Slurm manages.

    Args:
        at_once: jobs in the queue at the same time; None: all.
        retries: see :class:`Place`.
        cpus: cores of a job.
        gpus: GPUs of a job.
        options: of sbatch by their long names, with ``_`` or ``-``; and ``cluster``.

    Raises:
        UserError: no submitit, no Slurm, or an option that cannot be.
    """

    def __init__(self, at_once: int | None, retries: int, cpus: int, gpus: int, options: Mapping[str, str]) -> None:
        super().__init__(at_once, retries, POLL)
        self.submitit = _submitit()
        self.options = {key.replace("-", "_"): value for key, value in options.items()}
        self.cluster = self.options.pop("cluster", "slurm")
        if self.cluster not in CLUSTERS:
            raise UserError(f"--slurm cluster={self.cluster}: it is slurm, or local to try things out")
        if self.cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
            raise UserError("--on slurm: no sbatch and srun here; give the command on a machine that submits to Slurm")
        self.processes, self.variables = max(1, gpus), {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(cpus))}
        self.parameters = self._parameters(cpus, gpus)

    def _parameters(self, cpus: int, gpus: int) -> dict[str, Any]:
        """For submitit; what it does not know by name goes to sbatch as it is."""
        minutes = self.options.pop("time", str(MINUTES))
        if not minutes.isdecimal() or int(minutes) < 1:
            raise UserError(f"--slurm time={minutes}: give whole minutes")
        own = {"setup", "additional_parameters", "srun_args", "teardown", "map_count", "signal_delay_s"}
        known = self.submitit.SlurmExecutor._valid_parameters() - own
        more = {key.replace("_", "-"): value for key, value in self.options.items() if key not in known}
        named = {f"slurm_{key}": int(value) if value.isdecimal() and str(int(value)) == value else value
                 for key, value in self.options.items() if key in known}  # fmt: skip
        parameters = {"timeout_min": int(minutes), "cpus_per_task": cpus, **named}
        parameters |= {"gpus_per_node": gpus} if gpus else {}
        return parameters | ({"slurm_additional_parameters": more} if more else {})

    def begin(self, job: Job) -> SlurmHandle:
        """Submit it, or take up what an earlier call has submitted and left in the queue."""
        folder = job.log.with_suffix(".slurm").absolute()
        if self.cluster == "slurm" and (there := self._submitted(folder)) is not None:
            return SlurmHandle(job, there, stays=True)
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier job that has ended
        folder.mkdir(parents=True)
        errors = (self.submitit.core.utils.FailedJobError, self.submitit.core.utils.FailedSubmissionError, OSError)
        try:
            executor = self.submitit.AutoExecutor(
                folder, cluster=self.cluster, **{f"{self.cluster}_max_num_timeout": TIMEOUTS}
            )
            executor.update_parameters(name=f"mmcl-{job.name.replace('/', '-')}", **self.parameters)
            submitted = executor.submit(SlurmTask(job, self.variables, self.processes))
        except errors as error:
            raise UserError(f"sbatch: {' '.join(str(error).split()):.300}") from error
        return SlurmHandle(job, submitted, stays=self.cluster == "slurm")

    def _submitted(self, folder: Path) -> Any | None:
        """The job of an earlier call that is still waiting or running."""
        for file in folder.glob("*_submitted.pkl"):
            job = self.submitit.SlurmJob(folder, file.name.removesuffix("_submitted.pkl"))
            known = job.get_info(mode="force") or _in_queue(job.job_id)  # else Slurm has forgotten it
            if known and not job.done():
                return job
        return None


class SlurmTask(Task):
    """A task that queues again when its time is up, or when others go first; submitit asks it how."""

    def checkpoint(self) -> Any:
        """What to do then: the same, in the same folder. The process saves while this one is unwound."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class SlurmHandle(Handle):
    """A job in the queue or at work.

    Args:
        job: ours.
        submitted: submitit's.
        stays: it goes on without this process.
    """

    def __init__(self, job: Job, submitted: Any, stays: bool) -> None:
        self.job, self.submitted, self.stays = job, submitted, stays

    def working(self) -> bool:
        """Whether it waits or runs; Slurm is asked now and then, the result is looked for each time."""
        return not self.submitted.done()

    def failure(self) -> Failure | None:
        """What it returned, or what Slurm says of it."""
        if not self.submitted.paths.result_pickle.exists():
            if not self.job.commands:  # it succeeded, and only what it returned is lost
                return None
            state = str(self.submitted.state)
            return Failure(f"job {self.submitted.job_id} ended as {state} ({self.submitted.paths.stderr})",
                           ended_from_outside=not state.startswith("CANCELLED"))  # fmt: skip
        try:
            failure: Failure | None = self.submitted.result()
        except Exception as error:  # submitit raises its own, which hold the traceback of the job
            return Failure(f"job {self.submitted.job_id}: {_reason(error)}")
        return failure

    def stop(self, force: bool) -> str | None:
        """Leave it in the queue: who logs out from a cluster wants that. A process of this machine ends."""
        if self.stays:
            return str(self.submitted.job_id)
        with contextlib.suppress(ProcessLookupError):
            self.submitted.cancel()
        return None


def _in_queue(job: str) -> bool:
    """Whether squeue lists a job: what sacct does not know in the first seconds, and never without accounting."""
    try:
        found = subprocess.run(["squeue", "--noheader", "--jobs", job], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return found.returncode == 0 and bool(found.stdout.strip())


def _reason(error: Exception) -> str:
    """The last line of the traceback that submitit quotes between two rules; else the last one of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    rules = [at for at, line in enumerate(lines) if not line.strip("-")]
    if len(rules) > 1 and rules[-1] > rules[0] + 1:
        return lines[rules[-1] - 1]
    return lines[-1] if lines else type(error).__name__


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise UserError('--on slurm needs submitit, not installed here: run `pip install "mmcl[slurm]"`') from error
    return submitit
