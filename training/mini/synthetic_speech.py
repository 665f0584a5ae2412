"""Synthetic speech with exact phoneme times, from free synthesisers, to pre-train the audio encoder on.

Needs the programs flite and libespeak-ng (Debian: `apt install flite libespeak-ng1`). The words are those of
Python's own manual and made-up syllables, so that no text has to be collected.

    python -m training.mini.synthetic_speech --minutes 140 --output synthetic.npz
"""

import argparse
import ctypes
import pydoc_data.topics
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import resample_poly

from sdtalk.speech.audio import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from training.mini.visemes import NAMES, VISEMES, viseme_of_arpabet, viseme_of_ipa

FLITE_VOICES = {"awb": 120, "kal16": 110, "rms": 100, "slt": 180}  # usual pitch in Hz
ESPEAK_LANGUAGES = "en-us en-gb de es it fr-fr pl cs pt nl sv hu tr ro ru ja cmn-latn-pinyin".split()
ESPEAK_VARIANTS = "m1 m3 m4 m5 m7 f1 f2 f3 f4 f5 klatt klatt3 adam linda michael anika".split()
ESPEAK_RATE_HZ = 22_050
SMOOTH_SECONDS = (0.045, 0.060, 0.025)  # opening, rounding, closure: lips are slow, but close fast
_FINE_HZ = 1000


@dataclass(frozen=True)
class Utterance:
    """Synthetic speech.

    Attributes:
        samples: [samples] mono, 16 kHz, full scale = 1.
        visemes: (viseme class, start in seconds) in order.
    """

    samples: np.ndarray
    visemes: list[tuple[str, float]]


def say_with_flite(text: str, voice: str, stretch: float, pitch_hz: float) -> Utterance:
    """Speak English with flite: durations stretched by `stretch`, mean pitch as given."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as wave:
        settings = [
            "--setf",
            f"duration_stretch={stretch:.3f}",
            "--setf",
            f"int_f0_target_mean={pitch_hz:.1f}",
        ]
        command = ["flite", "-voice", voice, *settings, "-psdur", "-t", text, "-o", wave.name]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        data = Path(wave.name).read_bytes()
    samples = np.frombuffer(data[data.index(b"data") + 8 :], "<i2").astype(np.float32) / 32768
    names, ends = zip(*(item.rsplit(":", 1) for item in listing), strict=True)
    starts = [0.0, *(float(end) for end in ends[:-1])]
    return Utterance(samples, list(zip(map(viseme_of_arpabet, names), starts, strict=True)))


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    """`espeak_EVENT` of espeak-ng's speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class Espeak:
    """The espeak-ng library, whose events tell phoneme times (the program does not); one per process."""

    _SYNCHRONOUS, _PHONEME_EVENTS, _IPA, _UTF8 = 2, 1, 2, 1
    _PHONEME_EVENT, _RATE, _PITCH, _RANGE = 7, 1, 3, 4

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libespeak-ng.so.1")
        self._library.espeak_Initialize(self._SYNCHRONOUS, 1000, None, self._PHONEME_EVENTS | self._IPA)
        self._callback = _CALLBACK(self._collect)  # kept: the library holds a bare pointer to it
        self._library.espeak_SetSynthCallback(self._callback)
        self._pieces: list[np.ndarray] = []
        self._phones: list[tuple[str, float]] = []

    def _collect(self, wave, length, events) -> int:
        if length > 0:
            self._pieces.append(np.ctypeslib.as_array(wave, (length,)).copy())
        i = 0
        while events[i].type != 0:
            if events[i].type == self._PHONEME_EVENT:
                raw = ctypes.string_at(ctypes.addressof(events[i]) + _Event.id.offset, 8).split(b"\0")[0]
                self._phones.append((raw.decode(errors="ignore"), events[i].sample / ESPEAK_RATE_HZ))
            i += 1
        return 0

    def say(self, text: str, voice: str, words_per_minute: int, pitch: int, pitch_range: int) -> Utterance:
        """Speak; voice as "de+f3" (language and variant), pitch and its range 0..100."""
        self._pieces.clear()
        self._phones.clear()
        self._library.espeak_SetVoiceByName(voice.encode())
        for key, value in ((self._RATE, words_per_minute), (self._PITCH, pitch), (self._RANGE, pitch_range)):
            self._library.espeak_SetParameter(key, value, 0)
        data = text.encode()
        self._library.espeak_Synth(data, len(data) + 1, 0, 1, 0, self._UTF8, None, None)
        samples = np.concatenate([*self._pieces, np.zeros(1, np.int16)]).astype(np.float32) / 32768
        resampled = resample_poly(samples, 320, 441)
        return Utterance(resampled.astype(np.float32), _with_closures([("", 0.0), *self._phones]))


def _with_closures(phones: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Visemes of espeak-ng's phones; it counts the closure of a voiceless stop to the sound before."""
    visemes = []
    for i, (phone, start) in enumerate(phones):
        if i > 0 and phone[:1] in tuple("ptk"):
            start = max(start - 0.05, (start + phones[i - 1][1]) / 2)
        visemes.append((viseme_of_ipa(phone), start))
    return visemes


def targets(utterance: Utterance) -> tuple[np.ndarray, np.ndarray]:
    """Viseme class [frames] and smooth opening, rounding, closure [frames, 3] at the frames' middles."""
    frames = len(utterance.samples) // SAMPLES_PER_FRAME
    names, starts = zip(*utterance.visemes, strict=True)
    fine = np.arange(frames * _FINE_HZ // FRAME_RATE_HZ) / _FINE_HZ
    index = np.searchsorted(np.array(starts), fine, side="right") - 1
    classes = np.array([NAMES.index(name) for name in names])[index.clip(0)]
    levels = np.array([VISEMES[name] for name in NAMES], np.float32)[classes]
    smooth = [gaussian_filter1d(levels[:, i], SMOOTH_SECONDS[i] * _FINE_HZ) for i in range(3)]
    step = _FINE_HZ // FRAME_RATE_HZ
    return classes[step // 2 :: step], np.stack(smooth, axis=1)[step // 2 :: step]


_SYLLABLES = {
    "ja": (
        "かきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわばびぶべぼぱぴぷぺぽ",
        "",
        "",
    ),
    "ru": ("б в г д ж з к л м н п р с т ф х ц ч ш", "а е и о у ы я ю", "н т к м п с л р"),
    "cmn-latn-pinyin": ("b p m f d t n l g k h zh ch sh", "a1 ai2 ao4 an3 ang4 en2 u4 i1", ""),
}
_LATIN = (
    "b p m f v d t k g s l r n h z j w br pl fr st tr ch sh",
    "a e i o u ai au ei",
    "n m s t l r p k b f",
)


def _made_up_words(language: str, count: int, rng: np.random.Generator) -> list[str]:
    onsets, vowels, codas = _SYLLABLES.get(language, _LATIN)
    parts = [list(onsets) if not vowels else onsets.split(), vowels.split() or [""], codas.split() or [""]]

    def syllable() -> str:
        coda = rng.choice(parts[2]) if rng.random() < 0.3 else ""
        return str(rng.choice(parts[0])) + str(rng.choice(parts[1])) + str(coda)

    return ["".join(syllable() for _ in range(rng.integers(1, 4))) for _ in range(count)]


def _manual_words() -> list[str]:
    words = re.findall(r"\b[a-z]{2,12}\b", " ".join(pydoc_data.topics.topics.values()).lower())
    return [word for word in words if re.search("[aeiouy]", word)]


def random_text(language: str, words: list[str], rng: np.random.Generator) -> str:
    """One or two sentences: a stretch of the manual for English half the time, made-up words otherwise."""
    sentences = []
    for _ in range(rng.integers(1, 3)):
        count = int(rng.integers(3, 11))
        if language.startswith("en") and rng.random() < 0.7:
            first = int(rng.integers(0, len(words) - count))
            chosen = words[first : first + count]
        else:
            chosen = _made_up_words(language, count, rng)
        if count > 5:
            chosen[count // 2] += ","
        sentences.append(" ".join(chosen))
    return ". ".join(sentences) + "."


def utterances(minutes: float, seed: int) -> Iterator[Utterance]:
    """Random utterances of both synthesisers until there are this many minutes, the same by seed."""
    rng, words, espeak, seconds = np.random.default_rng(seed), _manual_words(), Espeak(), 0.0
    while seconds < minutes * 60:
        if rng.random() < 0.55:
            voice = str(rng.choice(list(FLITE_VOICES)))
            pitch = FLITE_VOICES[voice] * rng.uniform(0.75, 1.35)
            utterance = say_with_flite(random_text("en", words, rng), voice, rng.uniform(0.75, 1.4), pitch)
        else:
            language = str(rng.choice(ESPEAK_LANGUAGES))
            voice = f"{language}+{rng.choice(ESPEAK_VARIANTS)}"
            rate, pitch, spread = (int(rng.integers(*span)) for span in ((120, 230), (20, 80), (20, 90)))
            utterance = espeak.say(random_text(language, words, rng), voice, rate, pitch, spread)
        if len(utterance.samples) < SAMPLE_RATE_HZ:
            continue
        seconds += len(utterance.samples) / SAMPLE_RATE_HZ
        yield utterance


def main() -> None:
    """Write one .npz: samples int16 [all], classes uint8 [all], curves float16 [all, 3], frames [n]."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=140)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    samples, classes, curves = [], [], []
    for utterance in utterances(arguments.minutes, arguments.seed):
        viseme, curve = targets(utterance)
        whole = utterance.samples[: len(viseme) * SAMPLES_PER_FRAME]
        samples.append((whole * 32767).clip(-32768, 32767).astype(np.int16))
        classes.append(viseme.astype(np.uint8))
        curves.append(curve.astype(np.float16))
    np.savez(
        arguments.output,
        samples=np.concatenate(samples),
        classes=np.concatenate(classes),
        curves=np.concatenate(curves),
        frames=np.array([len(viseme) for viseme in classes]),
    )
    minutes = sum(map(len, samples)) / SAMPLE_RATE_HZ / 60
    print(f"{arguments.output}: {len(classes)} utterances, {minutes:.1f} min")


if __name__ == "__main__":
    main()
