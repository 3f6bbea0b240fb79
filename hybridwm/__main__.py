"""`python -m hybridwm` is the command `hybridwm`."""

from hybridwm.cli import entry

if __name__ == "__main__":
    entry()
