"""Four programs that stand in for Slurm: jobs are process groups of this machine, known by numbers in a folder."""

from __future__ import annotations

from pathlib import Path

PROGRAMS = {
    "sbatch": """
number=$(($(cat next 2>/dev/null || echo 100) + 1)); echo $number > next; cp "$1" $number.sh
SLURM_JOB_ID=$number setsid bash "$1" < /dev/null > /dev/null 2>&1 &
echo $! > $number.pid
echo "Submitted batch job $number"
""",
    "srun": """
while [[ $1 == --* ]]; do case $1 in --output|--error) shift 2 ;; *) shift ;; esac; done
exec "$@"
""",
    "sacct": """
echo "JobID|State|NodeList"
for file in *.pid; do
  kill -0 $(cat $file) 2> /dev/null && state=RUNNING || state=NODE_FAIL
  echo "${file%.pid}|$state|here"
done
""",
    "scancel": "kill -TERM -- -$(cat $1.pid)",
}


def make_slurm(folder: Path) -> Path:
    """The folder of the programs, for PATH; job scripts, as they were submitted, are N.sh in it."""
    folder.mkdir()
    for name, text in PROGRAMS.items():
        go = "" if name == "srun" else f"cd {folder}\n"
        (folder / name).write_text(f"#!/bin/bash\n{go}{text.strip()}\n")
        (folder / name).chmod(0o755)
    return folder
