"""Programs for development and tests; nothing in `src` imports them."""
