"""The dataset definitions: model, loader, column types, and the columns that staging adds.

Imported by every other package; imports `errors` alone.
"""
