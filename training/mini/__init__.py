"""Training steps of `mini` alone: mouth codes from sound, and motion geometry without rendering."""
