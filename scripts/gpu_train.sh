#!/usr/bin/env bash
# GPU training: mini learns for some minutes on a machine with a GPU that is lent; scripts/gpu/train.py does it.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "${PYTHON:-python3}" -P -m scripts.gpu.train "$@"
