"""Dubbing: new speech for an existing video of a person.

clip ───► track_clip ─► shots ─► LowerFace, OpenMouth ─┐                       once a clip
speech ─► SpeechEncoder ─► mouth codes ────────────────┤
▼
clip ───► frames_in_order ─► repaint ─► label, mark ─► VideoWriter             once a frame
"""

from sdtalk.dubbing.dub import Dub, check_dub, prepare_dub
from sdtalk.dubbing.dub_options import DubOptions
from sdtalk.dubbing.playback import LOOPS

__all__ = ["LOOPS", "Dub", "DubOptions", "check_dub", "prepare_dub"]
