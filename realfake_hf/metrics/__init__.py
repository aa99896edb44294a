"""How good a detector is, with n and an interval: reports, calibration, robustness, transfer."""
