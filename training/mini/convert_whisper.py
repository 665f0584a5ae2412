"""Store the first three layers of OpenAI's Whisper base as the package carries them: matrices as bytes.

    python -m training.mini.convert_whisper whisper_base_l3.safetensors -o sdtalk/assets/whisper_base_l3.safetensors

The input holds the encoder's tensors in float16 or float32 under the names of `transformers.WhisperEncoder` (conv1,
conv2, layers.0 to 2), as `WhisperModel.from_pretrained("openai/whisper-base").encoder.state_dict()` has them; other
tensors of that encoder are left out. Licence of the weights: MIT, Copyright (c) 2022 OpenAI.
"""

import argparse
import hashlib
import sys
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sdtalk.cli.arguments import USER_ERROR
from sdtalk.errors import InputError
from sdtalk.speech.whisper.network import WhisperEncoder
from sdtalk.speech.whisper.weights import quantised

LICENCE = "MIT, Copyright (c) 2022 OpenAI; https://github.com/openai/whisper"


def convert(source: Path, target: Path) -> int:
    """Write the package's file; its metadata say what it was made of.

    Returns:
        Bytes that were written.

    Raises:
        InputError: The input lacks a tensor, or has it in another size.
    """
    remedy = "Give the encoder of Whisper base as safetensors."
    try:
        state = load_file(source)
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
    except (OSError, SafetensorError) as error:
        raise InputError(str(source), f"no tensors can be read from it ({error})", remedy) from error
    kept = {}
    for name, like in WhisperEncoder().state_dict().items():
        if name not in state or state[name].shape != like.shape:
            raise InputError(str(source), f"it lacks {name} as Whisper base has it", remedy)
        kept[name] = state[name]
    about = {"made_of": "Whisper base, first 3 layers", "source_sha256": digest, "licence": LICENCE}
    save_file(quantised(kept), target, about)
    return target.stat().st_size


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 where the input cannot be used."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args(argv)
    try:
        size = convert(arguments.source, arguments.output)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    print(f"{arguments.output}: {size:,} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
