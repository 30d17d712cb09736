"""What tests share: small models, data sets of tones, finished runs, full disks; `from helpers.small import ...`."""
