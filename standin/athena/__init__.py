"""Athena's API: statements translated for Trino, refused where Athena refuses them, answered as Athena answers."""
