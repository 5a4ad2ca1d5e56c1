"""Policy in plain numpy: decoding, bundles, p-values, verdicts; shared by the server and the evaluation."""
