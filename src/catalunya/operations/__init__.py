"""What operators use beside runs: alerts, maintenance, doctor, status, trace, parity.

Imported by `cli` and the DAGs.
"""
