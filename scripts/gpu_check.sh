#!/usr/bin/env bash
# GPU check: proves in minutes, on any machine with a GPU, what works there and how fast; scripts/gpu/check.py does it.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "${PYTHON:-python3}" -P -m scripts.gpu.check "$@"
