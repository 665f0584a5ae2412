"""The browser demo, as a Hugging Face Space runs it and by hand: `python app.py [--model FOLDER_OR_HUB_ID ...]`.

By hand the same as `sdtalk demo`; the page itself is `sdtalk/demo/page.py`. A Space runs it without arguments, with a
GPU, without one, or with one that is lent (ZeroGPU): docs/space.md. `gradio app.py` reloads it while you change it.
"""

import sys

from sdtalk.cli.arguments import command_parser
from sdtalk.cli.main import reported
from sdtalk.demo.zero_gpu import import_spaces
from sdtalk.process import tune_process

MODELS: list[str] = []
"""What a Space offers besides `mini`: "user/name" on the Hub, or folders; the first is the default."""


def main() -> int:
    """Load the models and make the page; serve it, unless this file is only imported."""
    global demo  # the name under which Gradio and Spaces look for a page to reload
    from sdtalk.demo.launch import (
        make_page,
        serve,
    )  # PyTorch: after the process is tuned and `spaces` imported

    alone = __name__ == "__main__"
    given = command_parser("demo").parse_args(sys.argv[1:] if alone else [])
    demo = make_page(
        [*given.model, *MODELS], given.device, given.max_seconds, given.concurrency, given.free_label
    )
    if alone:
        serve(demo, given.host, given.port, given.share, given.auth)
    return 0


tune_process(one_arena=True)
import_spaces()
if code := reported(main):
    sys.exit(code)
