"""The gates that judge snapshots and marts by their figures: expectations, comparisons, findings.

Imported by `staging`, `audit` and what is above them; imports `lake` and `datasets`.
"""
