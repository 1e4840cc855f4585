"""The command line: talks to the HTTP API, nothing else."""
