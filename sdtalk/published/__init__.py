"""The authors' published checkpoint: reading, conversion to a model of ours, proof of equality."""
