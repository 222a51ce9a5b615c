"""What a release says about itself: data dictionary, data package, attribution, and how demo data are marked.

Imported by `publish` and by what is above it.
"""
