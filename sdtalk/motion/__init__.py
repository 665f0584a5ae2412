"""Motion fields: sound and eye state to Gaussian offsets (paper section 3.2)."""
