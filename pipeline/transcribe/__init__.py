"""The stage `transcribe`: what is said in videos -> subtitle files, by Whisper."""
