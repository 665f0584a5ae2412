"""Options of dubbing: whose mouth moves, how far, and what happens where the sound is longer than the clip."""

from dataclasses import dataclass, fields, replace
from typing import Any

from sdtalk.dubbing.playback import LOOPS
from sdtalk.errors import InputError
from sdtalk.options import TalkOptions
from sdtalk.tracking.found_faces import LARGEST


@dataclass(frozen=True)
class DubOptions:
    """How a clip is dubbed.

    Attributes:
        face: Whose mouth moves: in every shot the Nth face from the left, from 1; 0: the largest.
        loop: What happens where the sound is longer than the clip: "pingpong", the clip goes backward and forward;
            "hold", its last frame stays, with a mouth that goes on; "cut", the sound ends with it.
        mouth: How far the mouth moves, 1 as learned; 0 to 2.
        label: Text in a corner of every frame; "": none.
        mark: Put the invisible mark into every frame, see `provenance.mark`.

    Raises:
        InputError: A value is of the wrong type or not possible.
    """

    face: int = LARGEST
    loop: str = "pingpong"
    mouth: float = 1.0
    label: str = ""
    mark: bool = True

    def __post_init__(self) -> None:
        TalkOptions.of(mouth=self.mouth, label=self.label, mark=self.mark)  # says what is wrong with these
        if self.loop not in LOOPS:
            raise InputError(
                f"loop {self.loop!r}", "there is no such choice", f"Choose of {', '.join(LOOPS)}."
            )
        if isinstance(self.face, bool) or not isinstance(self.face, int) or self.face < 0:
            raise InputError(f"face {self.face!r}", "faces have numbers from 1", "Choose 0 for the largest.")

    @classmethod
    def of(cls, options: "DubOptions | None" = None, **choices: Any) -> "DubOptions":
        """Options by keywords, on top of others.

        Args:
            options: Those that `choices` do not name; None: the defaults.
            choices: Values by the names of the attributes.

        Raises:
            InputError: There is no such option, or its value is not possible.
        """
        names = [f.name for f in fields(cls)]
        for name in choices:
            if name not in names:
                raise InputError(
                    f"option {name!r}", "there is no such option", f"Choose of {', '.join(names)}."
                )
        return replace(cls() if options is None else options, **choices)
