"""All tests. Environment that must be there before a test, or a process that it starts, loads a library."""

import os

# Threads of OpenMP that wait for each other sleep instead of spinning. Several test processes share the CPUs, so that
# a thread that spins keeps the one it waits for from running.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
