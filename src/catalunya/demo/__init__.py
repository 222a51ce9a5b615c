"""An offline portal that speaks the protocols of the real ones, with generated demo data."""
