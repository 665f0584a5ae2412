"""Training scripts; the package never imports them."""

from sdtalk.cli.process import tune_process

tune_process()  # every module here is a program: this comes before its own imports, and PyTorch's
