"""Front doors, control plane, dispatch and storage: everything that accepts, decides, remembers or reports."""
