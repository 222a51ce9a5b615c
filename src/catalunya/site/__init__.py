"""The public site: static pages in three languages, made from a release.

Imports `release`, `lake`, `datasets`; no stage imports it.
"""
