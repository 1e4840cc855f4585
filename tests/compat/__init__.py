"""Other people's tests and libraries against Forklight: `make test-compat`."""
