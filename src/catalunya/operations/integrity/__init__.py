"""Whether everything in a lake fits together, and the repair of what can be made again from what is whole.

`check.py` has the registry of the checks, `repair.py` what is done about their faults.
"""
