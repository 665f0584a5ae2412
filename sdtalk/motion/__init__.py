"""Sound and eye state -> Gaussian offsets: hash encoding, conditions, motion fields."""
