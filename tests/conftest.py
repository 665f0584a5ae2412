"""Settings that must be made before PyTorch is imported."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the programs do, see sdtalk/process.py
