"""`advsentry-train retrieve`: what an embedding finds among images of classes that it was not trained on."""
