"""Catalonia's open data on care for older people, from the portals to a published release."""

__version__ = "0.2.0"
