"""The browser demo, as a Hugging Face Space runs it and by hand: `python app.py [--model FOLDER_OR_HUB_ID ...]`.

The same as `sdtalk demo`; the page itself is `sdtalk/demo/page.py`.
"""

import sys

from sdtalk.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
