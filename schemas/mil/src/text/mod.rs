//! The textual form of modules: printer and parser, both driven by [`Schema`](crate::schema::Schema) alone.
//!
//! ```text
//! symbol n = 1..64 default 8
//! func @main(%x: f32[n, 3]) ios17 {
//!   %w = const(val=f32[3] [1.0, 2.0, 3.0]) : f32[3]
//!   %y = mul(x=%x, y=%w) : f32[n, 3]
//!   return %y as "output"
//! }
//! ```
//!
//! The type after an op is an assertion: types are inferred. `as "…"` gives an interface name that differs from the
//! printed one. Blocks are arguments: `body={(%i: i32[]) … yield %j}`.

mod lexer;
mod namer;
mod parse;
mod print;

pub use namer::Namer;
pub use parse::{TextError, parse, parse_tensor};
pub use print::{Elide, print, print_op};
