"""Provenance: how a video says by itself where it comes from, by an invisible mark and by a signed claim."""
