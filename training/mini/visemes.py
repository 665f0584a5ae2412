"""Visemes: how open, rounded and closed lips are in each of the 15 classes of speech sounds (MPEG-4 kind).

The numbers are a phonetics textbook's order of vowels (open - mid - close, spread - neutral - rounded) put on
a scale by hand; pre-training only needs their order, the real amplitudes are learned from video.
"""

from typing import NamedTuple


class Viseme(NamedTuple):
    """Opening 0 closed .. 1 widest; rounding -1 spread .. 1 rounded; closure 1 = lips together."""

    opening: float
    rounding: float
    closure: float


VISEMES = {
    "sil": Viseme(0.05, 0.0, 0.5),
    "PP": Viseme(0.0, 0.0, 1.0),
    "FF": Viseme(0.12, 0.0, 0.5),
    "TH": Viseme(0.25, 0.0, 0.0),
    "DD": Viseme(0.25, -0.1, 0.0),
    "kk": Viseme(0.35, 0.0, 0.0),
    "CH": Viseme(0.25, 0.5, 0.0),
    "SS": Viseme(0.15, -0.3, 0.0),
    "nn": Viseme(0.3, -0.1, 0.0),
    "RR": Viseme(0.3, 0.4, 0.0),
    "aa": Viseme(1.0, 0.0, 0.0),
    "E": Viseme(0.6, -0.3, 0.0),
    "ih": Viseme(0.4, -0.5, 0.0),
    "oh": Viseme(0.7, 0.7, 0.0),
    "ou": Viseme(0.3, 1.0, 0.0),
}
NAMES = list(VISEMES)

_IPA = {
    "PP": "pbmɓʙɱ",
    "FF": "fvɸβʋ",
    "TH": "θð",
    "DD": "tdʈɖ",
    "kk": "kgɡŋxɣhɦqχħʔcɟçɲɴ",
    "CH": "ʃʒɕʑʂʐ",
    "SS": "szʦʣ",
    "nn": "nlɫʎɭɳɬɹ",
    "RR": "rʁɾɻɽʀ",
    "aa": "aɑæɐʌ",
    "E": "eɛəɜɘɚɝœø",
    "ih": "iɪjɨɯɤ",
    "oh": "oɔɒɵ",
    "ou": "uʊwyʏɥʉ",
}
_IPA_CLASS = {letter: name for name, letters in _IPA.items() for letter in letters}

_ARPABET = {
    "PP": "p b m em",
    "FF": "f v",
    "TH": "th dh",
    "DD": "t d dx",
    "kk": "k g ng hh hv",
    "CH": "ch jh sh zh",
    "SS": "s z",
    "nn": "n l en el nx",
    "RR": "r er axr",
    "aa": "aa ae ah ay aw",
    "E": "eh ey ax",
    "ih": "ih iy y ix",
    "oh": "ao ow oy",
    "ou": "uh uw w ux",
    "sil": "pau h# brth",
}
_ARPABET_CLASS = {phone: name for name, phones in _ARPABET.items() for phone in phones.split()}


def viseme_of_ipa(phone: str) -> str:
    """Class of a sound in IPA (as espeak-ng writes it); an affricate counts as its fricative."""
    if any(fricative in phone for fricative in "ʃʒɕʑʂʐ"):
        return "CH"
    return next((_IPA_CLASS[letter] for letter in phone if letter in _IPA_CLASS), "sil")


def viseme_of_arpabet(phone: str) -> str:
    """Class of a sound in flite's ARPAbet."""
    return _ARPABET_CLASS[phone]
