"""What is seen of requests: records, metrics, traces, the page's feed."""
