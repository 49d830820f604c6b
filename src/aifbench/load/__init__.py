"""Load on a server: streaming client with receive stamps, framing of answers, and the calibration of both."""
