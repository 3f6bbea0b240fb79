"""The parts of `benchmarks/engine.py`: where worlds start, who competes, in which process, and what is reported."""
