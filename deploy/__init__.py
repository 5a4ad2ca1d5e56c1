"""What runs around the packages: demo, benchmark, result tables."""
