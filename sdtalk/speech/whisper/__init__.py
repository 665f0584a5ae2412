"""Whisper base, its first three layers: the frozen features that mini's mouth hears.

Whisper was trained to transcribe; what its first layers make of a sound tells the mouth's opening far better than a
log-mel spectrum does, in any language and in noise. The weights are OpenAI's (MIT licence), stored as bytes.
"""

from sdtalk.speech.whisper.chunks import LIVE, WHOLE_FILE, Chunks
from sdtalk.speech.whisper.features import WINDOW, WhisperFeatures
from sdtalk.speech.whisper.stream import WhisperStream

__all__ = ["LIVE", "WHOLE_FILE", "WINDOW", "Chunks", "WhisperFeatures", "WhisperStream"]
