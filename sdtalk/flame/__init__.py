"""FLAME, the head model of the paper: its files, its layer, fitting it to landmarks, tracking with it."""
