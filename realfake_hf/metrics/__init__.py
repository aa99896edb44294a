"""How good a detector is: reports, intervals, significance, calibration, operating points, out-of-distribution."""
