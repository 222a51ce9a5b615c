"""A local stand-in for Amazon Athena: Athena's API in front of Trino, over an emulator of S3 and Glue."""
