"""The reliability sheet: what the service promises under load, faults and strangers, as checks that can fail."""
