"""The command line: `sdtalk PORTRAIT SPEECH -o OUTPUT` and its sub-commands."""
