"""How good a world model is: errors, shares, calibration, figures."""
