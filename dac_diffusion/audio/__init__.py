"""From a file to a waveform, its windows and its log-mel spectrogram."""
