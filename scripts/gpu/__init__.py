"""Programs for a machine with a GPU that is there for minutes: `gpu_check.sh` proves, `gpu_train.sh` trains."""
