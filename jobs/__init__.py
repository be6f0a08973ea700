"""How embedkit runs: the command line, the local queue and Slurm jobs. What they compute is in the package embedkit."""
