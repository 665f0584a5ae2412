"""Data preparation: from raw videos to a prepared data set; the parts of `training/prepare.py`."""
