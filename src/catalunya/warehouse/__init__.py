"""Where the marts are built: dbt, and the engines that it works on.

Imported by the stages from `build` on; imports `staging`, `lake`, `datasets`.
"""
