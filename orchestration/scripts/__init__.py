"""Scripts that people and `make` run."""
