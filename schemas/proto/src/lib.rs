//! ONNX and Core ML wire types.
//!
//! Everything here is generated from the schemas in `proto/` by `cargo xtask gen` and committed, so that building needs
//! no generator. Decoding from [`bytes::Bytes`] shares `bytes` fields with the input; maps are ordered, so encoding is
//! deterministic. Messages nested more than 100 deep are an error, not a stack overflow.

/// ONNX models.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; ONNX's specification documents the fields")]
pub mod onnx {
    include!("generated/onnx.rs");
}

/// Core ML models: the file, its description and the types of features.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    reason = "generated; Core ML's specification documents the fields"
)]
pub mod coreml {
    include!("generated/coreml.rs");

    /// ML programs: functions, blocks, operations, types and values.
    pub mod mil {
        include!("generated/coreml.mil.rs");
    }
}

pub use prost::{DecodeError, Message};
