"""From raw videos to a prepared data set: what `training/prepare.py` runs."""
