"""Capacity on paper: what was measured, the formulas on it, and a simulation of a whole town."""
