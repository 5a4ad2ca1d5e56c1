"""Model servers of others, which `deploy.bench_serving` measures beside ours on the same graph."""
