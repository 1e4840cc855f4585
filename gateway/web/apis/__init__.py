"""AWS wire formats on one side, `gateway.control` on the other; one file per API."""
