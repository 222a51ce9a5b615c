"""The command line: commands, progress, tables and the one JSON object. Nothing imports it."""
