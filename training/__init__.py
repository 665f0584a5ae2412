"""Training scripts; the package never imports them."""
