"""How embedkit runs: the command line, the local queue, and what a cluster will need. See embedkit for what."""
