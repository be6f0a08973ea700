"""Hand a run to Slurm: which jobs, what is missing, limits, sbatch, rerun, cancel."""
