"""The protocols of the demo portal, one a module."""
