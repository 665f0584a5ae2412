"""Prepared data sets: index, shards, storage, reading, sampling and loading."""
