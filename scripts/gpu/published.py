"""Published model on a GPU: a file in the authors' layout is converted and compared, as `sdtalk convert --verify` does.

The weights are those of the test suite's rule, since the authors' own have no licence to be passed on. Prints JSON.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch

from scripts.gpu.steps import ROOT
from sdtalk.published.convert import convert
from sdtalk.published.verify import verify


def main() -> int:
    """Compare, and print what was found; 1 where a GPU differs by more than TF32 explains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, help="a file of theirs, instead of one by the rule")
    source = parser.parse_args().source
    with tempfile.TemporaryDirectory(prefix="sdtalk-published-") as folder:
        converted = Path(folder, "model")
        source = source or write_rule_file(Path(folder, "rule.pt"))
        convert(source, converted)
        found = verify(source, converted)
    print(json.dumps(asdict(found) | {"passed": found.passed}, indent=1))
    return 0 if found.passed else 1


def write_rule_file(path: Path) -> Path:
    """A file as the authors' trainer writes it, by the rule of the tests."""
    sys.path.insert(0, str(ROOT / "tests"))
    from published import SETTINGS, rule_checkpoint

    torch.save({"meta_cfg": SETTINGS, "model": rule_checkpoint()}, path)
    return path


if __name__ == "__main__":
    raise SystemExit(main())
