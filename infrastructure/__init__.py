"""The pipeline on AWS as code: one stack for development, one for production, and the package of its functions."""
