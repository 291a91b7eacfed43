"""Models that make vectors of texts, or scores of pairs of them: encoders, pooling, rerankers."""
