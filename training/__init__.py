"""Training, preparation and evaluation: scripts and their parts; the package sdtalk never imports them."""

from sdtalk.process import tune_process

tune_process()  # every module here is a program: this comes before its own imports, and PyTorch's
