"""Presets: options that go together, by name; every single one can still be chosen otherwise."""

from sdtalk.errors import InputError
from sdtalk.options import TalkOptions

PRESETS = {
    "natural": TalkOptions(),
    "calm": TalkOptions(style="calm", blink_rate=12.0, life=0.6, expression=0.3),
    "lively": TalkOptions(style="lively", blink_rate=18.0, life=1.4, expression=0.7, mouth=1.1),
    "still": TalkOptions(pose="still", blink_rate=10.0),
}
"""The defaults; a newsreader; somebody who tells a story; a portrait of which only mouth and lids move."""


def preset(name: str) -> TalkOptions:
    """The options of a preset.

    Args:
        name: One of `PRESETS`.

    Raises:
        InputError: There is no such preset.

    Examples:
        >>> preset("calm").style
        'calm'
    """
    if name not in PRESETS:
        remedy = f"Choose one of {', '.join(PRESETS)}."
        raise InputError(f"preset {name!r}", "there is no such choice", remedy)
    return PRESETS[name]
