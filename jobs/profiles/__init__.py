"""Site profiles: what each stage asks a cluster for."""
