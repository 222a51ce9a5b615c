"""An emulator of Amazon Athena on loopback: Athena's API in front of Trino, over an emulator of S3 and Glue."""
