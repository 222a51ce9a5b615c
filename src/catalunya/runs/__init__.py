"""One run: its record, its stages in one process (`pipeline`) or in steps of their own (`steps`, `aws_lambda`).

Imported by `operations`, `cli`, the DAGs and the functions on AWS. The only package that uses the demo portal:
`pipeline` reads from it in the demo environment.
"""
