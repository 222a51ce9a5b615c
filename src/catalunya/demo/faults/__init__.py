"""What can be wrong with the demo portal on purpose: in the bytes, between pages, in the rows."""
