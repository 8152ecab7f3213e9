"""Measures the server beside other ones on the machine it runs on; `bench/run --help`."""
