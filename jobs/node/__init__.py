"""What runs inside a job on a compute node: the job itself, its signals, its folders."""
