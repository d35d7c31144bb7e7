//! The MIL-like IR: what a Core ML program is, in memory.
//!
//! A [`Module`](ir::Module) holds functions; a [`Function`](ir::Function) owns arenas of values, ops and blocks, and
//! everything else holds `Copy` handles into them. An op is a plain struct that derives [`Op`](schema::Op): its fields
//! are its schema, and printing, parsing, verification, import and export follow from it.
//!
//! When is an op evaluated? In the order of its block, once each time the block runs. A block runs when its owner says
//! so (`cond` runs one of two, `while_loop` runs both many times); the body of a function runs once a call. Inner
//! blocks may read values of outer ones. Only ops with an [`Effect`](schema::Effect) touch anything but their results.
//!
//! This crate knows no framework, file format, pass or runner.

pub mod diagnostic;
pub mod fold;
pub mod ir;
pub mod ops;
pub mod reference;
pub mod schema;
pub mod text;
pub mod verify;

pub use mlconv_tensor as tensor;
