"""HuBERT-large: the speech tokens that the paper's motion fields hear (reference section 6, "Audio").

In `transformers` every token attends to the whole recording, which costs the square of its length, and cutting the
recording into pieces of 1000 tokens, as the published lineage does, leaves a trace at every cut. Here a token attends,
in every layer, to the 1000 tokens (20 s) around it, or to the first or last 1000 near an end. Up to 20 s that is the
network of `transformers`, number for number; beyond, it is a function of the sound alone, in which every token has the
context the network was trained with. How many tokens are computed at a time changes memory and speed, nothing else:
the layers are a chain of generators, each of which holds the stretch of tokens that its next ones need.
"""

from sdtalk.speech.hubert.features import HubertFeatures
from sdtalk.speech.hubert.windows import token_windows

__all__ = ["HubertFeatures", "token_windows"]
