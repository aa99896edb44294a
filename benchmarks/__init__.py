"""Speed and memory as ratios to named alternatives, measured in the same run; never part of the tests' verdict."""
