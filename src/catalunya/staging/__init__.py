"""How one landed snapshot becomes typed rows: SQL of the rows, schema drift, typing of the pages.

Imported by `stage`, `warehouse` and what is above them; imports `quality`, `sources`, `lake`, `datasets`.
"""
