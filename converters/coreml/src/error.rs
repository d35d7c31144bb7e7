//! Everything that can go wrong between a package on disk and its parts in memory.

use mlconv_tensor::{DType, Shape, Type};
use std::{fmt, io, path::PathBuf};

/// The result of reading or writing a package.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a package, or a part of it, cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {access} `{}`", path.display())]
    Io {
        /// What was tried.
        access: Access,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Neither a folder with a manifest nor a file.
    #[error("`{}` is neither a package, which is a folder with a `Manifest.json`, nor a model file", path.display())]
    NotAPackage {
        /// What was to be read.
        path: PathBuf,
    },
    /// A file that Git LFS has not downloaded.
    #[error("`{}` is a Git LFS pointer, not the file itself", path.display())]
    LfsPointer {
        /// The pointer.
        path: PathBuf,
    },
    /// The manifest is no JSON, or lacks something.
    #[error("`Manifest.json` cannot be read")]
    ManifestSyntax(#[from] serde_json::Error),
    /// The manifest is of a version that this reader does not know.
    #[error("the manifest's `fileFormatVersion` is `{found}`, not three numbers up to `1.0.0`")]
    ManifestVersion {
        /// The version.
        found: String,
    },
    /// The manifest does not say which item is the model.
    #[error("the manifest's `rootModelIdentifier` {}", found.as_ref().map_or("is missing".into(), |id| format!("`{id}` is no item")))]
    ManifestRoot {
        /// The identifier, if there is one.
        found: Option<String>,
    },
    /// A path that may not be followed.
    #[error("the path `{path}` {problem}")]
    UnsafePath {
        /// The path as written in the package.
        path: String,
        /// What is wrong with it.
        problem: PathProblem,
    },
    /// The model that the manifest names is not there.
    #[error("the package has no `Data/{path}`, which its manifest says is the model")]
    MissingItem {
        /// The path as written in the manifest.
        path: String,
    },
    /// The model is no protobuf of its schema.
    #[error("`{}` is no Core ML model", path.display())]
    Decode {
        /// The model file.
        path: PathBuf,
        /// Where decoding stopped.
        source: mlconv_proto::DecodeError,
    },
    /// The model is of a kind that is only recognised.
    #[error("the model is {}, not an ML program", kind.map_or("empty".into(), |k| format!("a `{k}`")))]
    NotAProgram {
        /// The field of `Model.Type` that is set.
        kind: Option<&'static str>,
    },
    /// A weight file is shorter than its header.
    #[error("a weight file of {len} bytes has no room for its header of 64")]
    WeightHeader {
        /// The file's length.
        len: usize,
    },
    /// A weight file of another version.
    #[error("the weight file is of version {found}, not 2")]
    WeightVersion {
        /// The version.
        found: u32,
    },
    /// A blob's metadata or data leaves the file.
    #[error("the blob at offset {offset} needs bytes {start} to {start} + {len} of a weight file of {file_len}")]
    BlobOutOfFile {
        /// Where the metadata is said to be.
        offset: u64,
        /// The first byte needed.
        start: u64,
        /// How many bytes are needed.
        len: u64,
        /// The file's length.
        file_len: usize,
    },
    /// There is no metadata at an offset.
    #[error("no blob starts at offset {offset}: found {found:#010x} where 0xdeadbeef was wanted")]
    BlobSentinel {
        /// Where the metadata is said to be.
        offset: u64,
        /// What is there instead of the sentinel.
        found: u32,
    },
    /// A blob of a type that the format does not have.
    #[error("the blob at offset {offset} is of the unknown type {code}")]
    BlobCode {
        /// Where the metadata is.
        offset: u64,
        /// The type's code.
        code: u32,
    },
    /// A blob is of another type than the value bound to it.
    #[error("the blob at offset {offset} holds {found}, where {want} was wanted")]
    BlobType {
        /// Where the metadata is.
        offset: u64,
        /// The blob's type.
        found: DType,
        /// The value's type.
        want: DType,
    },
    /// A blob holds more or fewer elements than the value bound to it.
    #[error("the blob at offset {offset} holds {found} bytes less {padding} bits, which is not {want}{}", Shape::from(&shape[..]))]
    BlobSize {
        /// Where the metadata is.
        offset: u64,
        /// The blob's length in bytes.
        found: usize,
        /// Bits at its end that belong to no element; 0 for types of whole bytes.
        padding: u64,
        /// The value's type.
        want: DType,
        /// The value's shape.
        shape: Vec<usize>,
    },
    /// Data that lies before its metadata ends the walk over a file.
    #[error("the data of the blob at offset {offset} does not follow its metadata")]
    BlobOrder {
        /// Where the metadata is.
        offset: u64,
    },
    /// A weight that no weight file can hold.
    #[error("{count} elements of {dtype} in {len} bytes cannot be stored in a weight file")]
    NotStorable {
        /// The element type.
        dtype: DType,
        /// How many elements there are.
        count: usize,
        /// How many bytes they take.
        len: usize,
    },
    /// Weights of a model that is not in a package.
    #[error("the weight file `{name}` belongs to a package, but the model was read from a file of its own")]
    NoPackage {
        /// The weight file's name in the program.
        name: String,
    },
    /// A value of a kind that no program uses.
    #[error("a value is {what}")]
    Value {
        /// What it is.
        what: &'static str,
    },
    /// A value that no interface can have.
    #[error("`{name}` is {found}, which no interface has")]
    Interface {
        /// The input or output.
        name: String,
        /// Its type.
        found: Type,
    },
    /// A function of an op set that is not known.
    #[error("function `{function}` is written in the op set `{found}`, which is not known")]
    Opset {
        /// The function.
        function: String,
        /// The op set.
        found: String,
    },
    /// A function without a body for its op set.
    #[error("function `{function}` has no body for its op set `{opset}`")]
    NoBlock {
        /// The function.
        function: String,
        /// The op set.
        opset: String,
    },
    /// A value whose type cannot be read.
    #[error("`{name}` has no type that can be read")]
    Type {
        /// The value.
        name: String,
    },
    /// A name that two values have.
    #[error("`{name}` is defined twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// A name that no value has.
    #[error("{reader} reads `{name}`, which is not defined there")]
    Undefined {
        /// The name.
        name: String,
        /// Who reads it.
        reader: String,
    },
    /// Blocks nested too deep.
    #[error("blocks are nested more than {limit} deep")]
    Nesting {
        /// The deepest nesting that is read.
        limit: usize,
    },
    /// An operation that cannot be read.
    #[error("{op}: {why}")]
    Op {
        /// The operation.
        op: String,
        /// What is wrong with it.
        why: String,
    },
    /// A part of an operation that cannot be read.
    #[error("{op}: {why}")]
    Within {
        /// The operation.
        op: String,
        /// What is wrong.
        why: Box<Error>,
    },
    /// The target of a write exists and may not be replaced.
    #[error("`{}` exists", path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// The target of a write is something else than a package, and is left alone even when replacing is allowed.
    #[error("`{}` exists and is no package", path.display())]
    NotReplaceable {
        /// The target.
        path: PathBuf,
    },
    /// The target of a write lies inside of a package, which it would not belong to.
    #[error("`{}` lies inside of the package `{}`", path.display(), package.display())]
    InsidePackage {
        /// The target.
        path: PathBuf,
        /// The package.
        package: PathBuf,
    },
    /// The target of a write has no name, as `..` has none.
    #[error("`{}` names no file", path.display())]
    NoName {
        /// The target.
        path: PathBuf,
    },
}

/// What was tried on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Opening or reading.
    Read,
    /// Creating or writing.
    Write,
    /// Renaming.
    Rename,
    /// Deleting.
    Remove,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Rename => "rename",
            Self::Remove => "remove",
        })
    }
}

/// Why a path written in a package may not be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathProblem {
    /// It names nothing.
    Empty,
    /// It starts at a root.
    Absolute,
    /// It has a `..`.
    Climbs,
    /// A link on the way leads out of the package.
    LeavesPackage,
    /// A weight file's name that does not start with `@model_path/`.
    NotAtModelPath,
}

impl fmt::Display for PathProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "names nothing",
            Self::Absolute => "is absolute",
            Self::Climbs => "climbs with `..`",
            Self::LeavesPackage => "leads out of the package",
            Self::NotAtModelPath => "does not start with `@model_path/`",
        })
    }
}
