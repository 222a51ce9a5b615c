"""The pipeline on AWS: a stack for development, a stack for production, and the package of the functions."""
