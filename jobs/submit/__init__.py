"""Submit a run to Slurm: plan its jobs, check limits and profile, call sbatch, rerun what is missing, cancel."""
