"""SDTalk: one portrait and one speech recording in, a talking-head video out.

    >>> from sdtalk import SDTalkPipeline
    >>> pipeline = SDTalkPipeline.from_pretrained()
    >>> pipeline("portrait.jpg", "speech.wav", pose="still").save("talk.mp4")

Public:

- `SDTalkPipeline`: files or arrays in, a video out. Start here.
- `TalkOptions`: how a video is made.
- `Talk`: what a pipeline returns; its frames are rendered when they are wanted.
- `Head`: a person made of a photo, for any number of recordings.
- `SDTalk`: the network, `from_pretrained` and `push_to_hub`.
- `InputError`: raised for every input that cannot be used, with what to do in one sentence.

Names are imported when first used: `import sdtalk` loads neither PyTorch nor Gradio.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sdtalk._version import __version__
from sdtalk.process import uncollected

if TYPE_CHECKING:
    from sdtalk.errors import InputError
    from sdtalk.head import Head
    from sdtalk.model import SDTalk
    from sdtalk.options import TalkOptions
    from sdtalk.pipeline import SDTalkPipeline
    from sdtalk.talk import Talk

_PLACES = {
    "Head": "sdtalk.head",
    "InputError": "sdtalk.errors",
    "SDTalk": "sdtalk.model",
    "SDTalkPipeline": "sdtalk.pipeline",
    "Talk": "sdtalk.talk",
    "TalkOptions": "sdtalk.options",
}

__all__ = ["Head", "InputError", "SDTalk", "SDTalkPipeline", "Talk", "TalkOptions", "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _PLACES:
        raise AttributeError(f"module 'sdtalk' has no attribute {name!r}")
    with uncollected():
        value = globals()[name] = getattr(import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
