//! The two sides of embeddings, held against what providers send.
