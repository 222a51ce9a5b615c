"""One run: its record, the stages in order in one process (`pipeline`) or in steps of their own (`steps`, `aws_lambda`).

Imported by `operations`, `cli`, the DAGs and the functions on AWS.
"""
