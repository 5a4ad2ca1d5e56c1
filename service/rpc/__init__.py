"""The gRPC edge: message conversion, statuses, servicers."""
