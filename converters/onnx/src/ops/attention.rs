//! Attention in all its forms, and rotary embeddings.

rows! {}
