"""An offline portal that speaks the protocols of the real ones, with generated demo data.

Imported by the hook in `runs` that lends it to the demo environment, and by `catalunya demo serve`.
"""
