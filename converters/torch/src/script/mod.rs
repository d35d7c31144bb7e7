//! TorchScript: its archives, and the interpreter that turns their code into nodes.

mod archive;
mod builtins;
mod interpret;
mod syntax;
mod value;
