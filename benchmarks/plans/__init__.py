"""The parts of `benchmarks/planning.py`: what is planned, who plans it, and what is reported."""
