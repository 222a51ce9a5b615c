"""How demo data are marked wherever a person meets them."""

NOTICE = (
    "DEMO DATA. Made by a seeded generator from published totals; no row describes a real service or person."
)
"""What is said to a person wherever demo data are shown."""
COLUMN = "demo_notice"
"""The last column of every CSV file of a demo release."""
SHORT_NOTICE = "DEMO DATA: not real"
"""Its value, in every row."""
