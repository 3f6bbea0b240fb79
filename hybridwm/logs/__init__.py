"""What was measured: recordings, how they are read, written, collected, cleaned and cut."""
