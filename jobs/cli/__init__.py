"""The command line: options, one module per group of commands, what they print."""
