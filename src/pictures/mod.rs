//! Pictures: PNG and JPEG files as arrays, and arrays as image inputs take them.
//!
//! A picture is an array of bytes, `u8[height, width]` or `u8[height, width, 3]` in the order red, green, blue, as Pillow and
//! other libraries give it. What an input makes of it depends on the input's layout.

mod decode;
mod develop;
mod resize;

pub use decode::{Decoded, decode};
pub(crate) use develop::developed;
pub use resize::{Size, resized};

use crate::{Diagnostic, codes};
use mlconv_tensor::{DType, Tensor};
use std::{fs::File, io::Read, path::Path};

/// Bytes that a file of a picture may have.
const MAX_BYTES: u64 = 1 << 28;

/// Pixels that a picture may have: its bytes stay in memory.
pub(crate) const MAX_PIXELS: usize = 1 << 26;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
const JPEG: &[u8] = b"\xff\xd8\xff";

/// What names of pictures end in, those that are not read included.
const SUFFIXES: &[&str] =
    &["png", "jpg", "jpeg", "avif", "bmp", "gif", "heic", "heif", "jp2", "pgm", "ppm", "tif", "tiff", "webp"];

/// Whether a name is that of a picture, be it of a kind that is not read.
pub(crate) fn is_named_so(name: &str) -> bool {
    let suffix = Path::new(name).extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    suffix.is_some_and(|s| SUFFIXES.contains(&s.as_str()))
}

/// Whether a file is a picture, by its first bytes or by its name.
pub(crate) fn is_picture(path: &Path) -> bool {
    let mut head = vec![];
    let read = path.is_file() && File::open(path).and_then(|f| f.take(8).read_to_end(&mut head)).is_ok();
    read && (head.starts_with(PNG) || head.starts_with(JPEG)) || is_named_so(&path.to_string_lossy())
}

/// Reads a PNG or JPEG file as a picture, of another size where that is given; and what a user should know of it.
pub fn read(path: &Path, size: Option<Size>) -> Result<(Tensor, Vec<Diagnostic>), Diagnostic> {
    let place = path.display().to_string();
    let unreadable = |why: String| Diagnostic::error(&codes::R0001, why).at(place.clone());
    let mut bytes = vec![];
    let file = File::open(path).map_err(|e| unreadable(format!("cannot read the file: {e}")))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| unreadable(format!("cannot read the file: {e}")))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(unreadable(format!("a picture has at most {MAX_BYTES} bytes")));
    }
    let decoded = decode(&bytes).map_err(|why| Diagnostic::error(&codes::R0008, why).at(place.clone()))?;
    let picture = size.map_or(decoded.picture.clone(), |size| resized(&decoded.picture, size));
    let note = |why: String| Diagnostic::warning(&codes::N0004, why).at(place.clone());
    Ok((picture, decoded.notes.into_iter().map(note).collect()))
}

/// Height, width and channels of a picture, or of each picture of a stack, as files are read; `None` of what is none.
pub(crate) fn size(t: &Tensor) -> Option<[usize; 3]> {
    match *t.shape() {
        _ if t.dtype() != DType::U8 => None,
        [height, width] => Some([height, width, 1]),
        [height, width, channels @ (1 | 3)] | [_, height, width, channels @ (1 | 3)] => Some([height, width, channels]),
        _ => None,
    }
}
