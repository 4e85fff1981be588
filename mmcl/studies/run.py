"""One run of a study: how it is trained and judged, which commands that takes, and whether it may begin or go on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmcl.common.documents import read_json
from mmcl.common.errors import UserError
from mmcl.engine.configuring import configure, configure_contrast
from mmcl.engine.finished import check_complete
from mmcl.engine.run_folder import check_run
from mmcl.evaluation.reporting.outdated import is_outdated
from mmcl.models.record import digest_of
from mmcl.places.job import Job, Step


@dataclass(frozen=True)
class Judge:
    """How the runs of a study are judged.

    Attributes:
        evaluation: name in ``EVALUATIONS``.
        options: (key, value as JSON) of it.
        clips: (option of `mmcl evaluate`, value) where others are judged than the run's own test side.
    """

    evaluation: str = "top1"
    options: tuple[tuple[str, str], ...] = ()
    clips: tuple[tuple[str, str], ...] = ()

    @property
    def report(self) -> str:
        """Name of the report folder inside a run folder; another judgement has another."""
        names = {"top1": "report-test", "open_vocabulary": "report-zero-shot"}
        if not self.options and not self.clips:
            return names.get(self.evaluation, f"report-{self.evaluation}")
        return f"report-{self.evaluation}-{digest_of([self.options, self.clips])[:8]}"

    @property
    def words(self) -> list[str]:
        """For the command line of `mmcl evaluate`."""
        words = [] if self.evaluation == "top1" else ["--evaluation", self.evaluation]
        words += [word for key, value in self.options for word in ("--option", f"{key}={value}")]
        return words + [f"--{key}={value}" for key, value in self.clips]


@dataclass(frozen=True)
class Judging(Step):
    """The judging of a run, whose proof is a report; one of what the run was before it was complete is none."""

    @property
    def done(self) -> bool:
        """Whether the run is complete and was judged then."""
        if self.proof is None or not (self.proof.is_file() and (self.proof.parents[1] / "summary.json").is_file()):
            return False
        try:
            facts = read_json(self.proof)
        except UserError:  # whoever reads the report says so
            return True
        try:
            return not (isinstance(facts, dict) and is_outdated(self.proof.parent, facts))
        except UserError:  # `mmcl evaluate` says what is wrong with the checkpoint
            return False


@dataclass(frozen=True)
class Run:
    """One training with its judgement.

    Attributes:
        arm: name of the arm.
        seed: of the run.
        draw: of the protocol, or None.
        folder: run folder.
        arguments: command line of ``mmcl train``.
        judge: how it is judged.
        beside: how else it is judged, for the matrix of a study.
    """

    arm: str
    seed: int
    draw: int | None
    folder: Path
    arguments: tuple[str, ...]
    judge: Judge = Judge()
    beside: tuple[Judge, ...] = ()

    @property
    def name(self) -> str:
        """arm/seed or arm/seed/draw."""
        return f"{self.arm}/{self.seed}" + (f"/{self.draw}" if self.draw is not None else "")

    @property
    def report(self) -> Path:
        """Report folder."""
        return self.folder / self.judge.report

    @property
    def log(self) -> Path:
        """What its commands print; beside the run folder, which is there only once training has begun."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def job(self) -> Job:
        """What is to be done for it, wherever."""
        judged = [self._judging(judge) for judge in (self.judge, *self.beside)]
        # A step that is done stands for those before it: what is new to the study must come behind the others.
        judged.sort(key=lambda step: not step.done)
        return Job(self.name, self.log, (Step(("train", *self.arguments), self.folder / "summary.json"), *judged))

    def judged(self, judge: Judge) -> bool:
        """Whether it is complete, and was judged so since."""
        return self._judging(judge).done

    def _judging(self, judge: Judge) -> Judging:
        out = self.folder / judge.report
        words = ("evaluate", f"--checkpoint={self.folder}", f"--out={out}", *judge.words)
        return Judging(words, out / "report.json")

    @property
    def commands(self) -> list[list[str]]:
        """Words after ``mmcl`` of what is still to be done; empty when finished."""
        return self.job.commands

    def check(self) -> None:
        """Whether the run may begin, go on in its folder, or be believed where it is complete.

        Raises:
            UserError: naming a key that is unknown or wrong, or that differs from the run's own ``config.yaml``; or the
                run was made of other clips, or from another model, than those that are named now.
        """
        try:
            config = configure(self.arguments)
            for one in configure_contrast(self.arguments) if config.stars else [config]:
                check_run(one)
                check_complete(one)
        except UserError as error:
            raise UserError(f"run {self.name}: {error}") from error
