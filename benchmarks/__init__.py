"""What embedkit's own work costs, each figure beside a named rival in the same run."""
