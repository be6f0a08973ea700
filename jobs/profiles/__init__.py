"""Site profiles: the resources that each stage requests from a cluster (`load` reads and validates the TOML file)."""
