"""Where the bundled tracker comes from, and how it compares with its source; not needed to train."""
