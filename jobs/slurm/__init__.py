"""Asking Slurm: the queue, the accounting and the cluster's own description."""
