"""Speech: reading sound, log-mel windows, HuBERT tokens, one audio code per video frame."""
