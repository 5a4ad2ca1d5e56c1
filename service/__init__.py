"""gRPC service that scores images; never imports torch."""
