"""An offline portal that speaks the protocols of the real ones, with generated demo data.

`runs` and the command import `environment.py`, which starts it in the demo environment; `catalunya demo serve` runs it.
"""
