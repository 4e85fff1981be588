"""Where jobs are done: processes of this machine, tasks of a Ray cluster, jobs of Slurm."""
