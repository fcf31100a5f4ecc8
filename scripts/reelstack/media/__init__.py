"""Re-encoding, decoding and windowing."""
