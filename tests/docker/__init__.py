"""What needs a container engine: started by `tests/docker/run`, never by pytest."""
