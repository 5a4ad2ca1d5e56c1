"""Our bundle's detectors beside those of peers, on one model with one set of attacks: `make bench-detectors`."""
