//! Losses that appear in exported graphs.

rows! {}
