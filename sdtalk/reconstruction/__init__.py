"""Portrait -> head Gaussians: image encoder, visible branch (dual lifting), completion branch."""
