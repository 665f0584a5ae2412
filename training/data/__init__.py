"""Prepared clips: their index, their shards, and what training draws from them."""
