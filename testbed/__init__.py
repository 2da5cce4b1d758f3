"""Simulation and emulation testbed for adaptive split computing of large language models."""

__version__ = "0.1.0"
