"""Speech: reading sound, Whisper features, log-mel windows, HuBERT tokens, one audio code per video frame."""
