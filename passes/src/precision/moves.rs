//! Ops that compute nothing.

/// Ops that only move or choose among the elements of their operands.
pub const MOVES: &[&str] = &[
    "concat",
    "depth_to_space",
    "expand_dims",
    "flatten2d",
    "gather",
    "gather_along_axis",
    "gather_nd",
    "identity",
    "pixel_shuffle",
    "pixel_unshuffle",
    "reshape",
    "reshape_like",
    "reverse",
    "select",
    "slice_by_index",
    "slice_by_size",
    "space_to_depth",
    "split",
    "squeeze",
    "stack",
    "tile",
    "transpose",
];

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_mil::ops::OPS;

    #[test]
    fn the_ops_of_the_table_are_in_the_catalogue() {
        assert!(MOVES.iter().all(|name| OPS.iter().any(|op| op.schema.name == *name)));
    }
}
