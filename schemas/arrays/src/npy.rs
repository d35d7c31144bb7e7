//! The `.npy` format, versions 1 to 3.

use mlconv_tensor::{Bytes, DType, Tensor};
use std::io::{self, Write};

const MAGIC: &[u8] = b"\x93NUMPY";

/// Element types by NumPy's letter and size in bytes.
const TYPES: [(&str, DType); 14] = [
    ("f2", DType::F16),
    ("f4", DType::F32),
    ("f8", DType::F64),
    ("i1", DType::I8),
    ("i2", DType::I16),
    ("i4", DType::I32),
    ("i8", DType::I64),
    ("u1", DType::U8),
    ("u2", DType::U16),
    ("u4", DType::U32),
    ("u8", DType::U64),
    ("b1", DType::Bool),
    ("?", DType::Bool),
    // NumPy has no bfloat16; what `ml_dtypes` and frameworks give it as is written as two bytes without a meaning.
    ("V2", DType::Bf16),
];

/// Reads a whole file.
pub(crate) fn parse(bytes: &[u8]) -> Result<Tensor, String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("not a .npy file: it does not begin with its mark")?;
    let (header, data) = match rest {
        [1, _, a, b, rest @ ..] => split(rest, usize::from(u16::from_le_bytes([*a, *b]))),
        [2 | 3, _, a, b, c, d, rest @ ..] => {
            split(rest, usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX))
        }
        [version, ..] => return Err(format!(".npy files of version {version} are not known")),
        [] => None,
    }
    .ok_or("the .npy file breaks off in its header")?;
    let header = std::str::from_utf8(header).map_err(|_| "the header of the .npy file is no text")?;
    let descr = field(header, "descr").ok_or("the header of the .npy file has no `descr`")?;
    let descr = descr.trim_matches(['\'', '"']);
    let (order, letters) = descr.split_at(descr.find(|c| !"<>|=".contains(c)).unwrap_or(0));
    if let Some(length) = letters.strip_prefix('U').filter(|_| field(header, "shape") == Some("()")) {
        return text(data, length, order == ">");
    }
    let dtype = TYPES.iter().find(|(l, _)| *l == letters).map(|(_, d)| *d);
    let dtype = dtype.ok_or_else(|| format!("arrays of type `{descr}` have no place in a model"))?;
    let shape = field(header, "shape").ok_or("the header of the .npy file has no `shape`")?;
    let shape: Vec<usize> = shape
        .trim_matches(['(', ')'])
        .split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .map(|s| s.parse().map_err(|_| format!("`{s}` is no size")))
        .collect::<Result<_, _>>()?;
    let mut data = data.to_vec();
    if order == ">" {
        let size = dtype.bits() as usize / 8;
        data.chunks_mut(size).for_each(<[u8]>::reverse);
    }
    if dtype == DType::Bool && data.iter().any(|b| *b > 1) {
        return Err("a boolean is neither 0 nor 1".to_owned());
    }
    let fortran = field(header, "fortran_order") == Some("True");
    let stored: Vec<usize> = if fortran { shape.iter().rev().copied().collect() } else { shape.clone() };
    let t = Tensor::new(dtype, &stored, Bytes::from(data).into()).map_err(|e| e.to_string())?;
    Ok(if fortran { reversed_axes(&t) } else { t })
}

/// A scalar of Unicode text, as [`write`] makes one; NumPy fills it up with zeros.
fn text(data: &[u8], length: &str, big: bool) -> Result<Tensor, String> {
    let broken = || format!("the data of the .npy file are no text of {length} characters");
    if length.parse::<usize>().ok().and_then(|n| n.checked_mul(4)) != Some(data.len()) {
        return Err(broken());
    }
    let point = |b: &[u8; 4]| char::from_u32(if big { u32::from_be_bytes(*b) } else { u32::from_le_bytes(*b) });
    let (points, _) = data.as_chunks::<4>();
    let text: Option<String> = points.iter().map(point).collect();
    Ok(Tensor::from_text(text.ok_or_else(broken)?.trim_end_matches('\0')))
}

fn split(bytes: &[u8], at: usize) -> Option<(&[u8], &[u8])> {
    (at <= bytes.len()).then(|| bytes.split_at(at))
}

/// The value of `key` in the literal dictionary of a header.
fn field<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let start = header.find(&format!("'{key}'"))? + key.len() + 2;
    let rest = header[start..].trim_start().strip_prefix(':')?.trim_start();
    let end = if rest.starts_with('(') { rest.find(')')? + 1 } else { rest.find([',', '}'])? };
    Some(rest[..end].trim())
}

/// Column-major storage read as row-major has its axes reversed; this puts them back.
fn reversed_axes(t: &Tensor) -> Tensor {
    let (size, bytes) = (t.dtype().bits() as usize / 8, t.blob().read());
    let shape: Vec<usize> = t.shape().iter().rev().copied().collect();
    let steps: Vec<usize> = mlconv_tensor::strides(t.shape()).iter().rev().copied().collect();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = vec![0usize; shape.len()];
    for _ in 0..t.count() {
        let at: usize = index.iter().zip(&steps).map(|(i, s)| i * s).sum();
        out.extend_from_slice(&bytes[at * size..(at + 1) * size]);
        for axis in (0..index.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    Tensor::new(t.dtype(), &shape, Bytes::from(out).into()).expect("as many bytes as before")
}

/// Writes version 1, or text as an array of Unicode.
pub(crate) fn write(w: &mut dyn Write, t: &Tensor) -> io::Result<()> {
    let (descr, data) = match t.to_text() {
        Some(text) => {
            let points: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
            (format!("<U{}", (points.len() / 4).max(1)), if points.is_empty() { vec![0; 4] } else { points })
        }
        None => {
            let wide = match t.dtype() {
                // NumPy has no such types; wider ones hold the same values.
                d if d.bits() < 8 => t.cast(if d == DType::I4 { DType::I8 } else { DType::U8 }),
                DType::Bf16 | DType::F8E4M3 | DType::F8E5M2 => t.cast(DType::F32),
                _ => t.clone(),
            };
            let letters = TYPES.iter().find(|(_, d)| *d == wide.dtype()).map_or("f4", |(l, _)| *l);
            let order = if wide.dtype().bits() == 8 { "|" } else { "<" };
            (format!("{order}{letters}"), wide.blob().read().into_owned())
        }
    };
    let dims: Vec<String> = t.shape().iter().map(ToString::to_string).collect();
    let comma = if dims.len() == 1 { "," } else { "" };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}{comma}), }}", dims.join(", "));
    // The data begin at a multiple of 64, after a line break.
    let used = MAGIC.len() + 4 + header.len() + 1;
    header.push_str(&" ".repeat(used.next_multiple_of(64) - used));
    header.push('\n');
    w.write_all(MAGIC)?;
    w.write_all(&[1, 0])?;
    w.write_all(&u16::try_from(header.len()).map_err(io::Error::other)?.to_le_bytes())?;
    w.write_all(header.as_bytes())?;
    w.write_all(&data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_round_trip() {
        for t in [
            Tensor::from_vec(&[2, 3], vec![1f32, -2.0, 3.5, f32::NAN, 0.0, 1e-30]),
            Tensor::from_vec(&[], vec![7i64]),
            Tensor::from_bools(&[3], [true, false, true]),
            Tensor::from_vec(&[0, 4], Vec::<i32>::new()),
            Tensor::from_text("K\u{f6}nig"),
            Tensor::from_text(""),
        ] {
            let mut bytes = vec![];
            write(&mut bytes, &t).expect("memory");
            assert!(t.dtype() == DType::Str || bytes.len() % 64 == t.blob().len() % 64);
            assert_eq!(parse(&bytes).expect("our own"), t);
        }
    }

    #[test]
    fn foreign_orders_are_read() {
        let header = |descr: &str, fortran: &str, shape: &str| {
            let h = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
            [MAGIC, &[1, 0], &(h.len() as u16).to_le_bytes()[..], h.as_bytes()].concat()
        };
        let big = [header(">i2", "False", "(2,)"), vec![1, 0, 0, 2]].concat();
        assert_eq!(parse(&big).expect("big-endian").to_i64(), [256, 2]);
        let columns = [header("|u1", "True", "(2, 3)"), vec![1, 4, 2, 5, 3, 6]].concat();
        let t = parse(&columns).expect("column-major");
        assert_eq!((t.shape(), t.to_i64()), (&[2, 3][..], vec![1, 2, 3, 4, 5, 6]));
    }

    #[test]
    fn hostile_headers_are_refused() {
        let header = |descr: &str| {
            let h = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (), }}\n");
            [MAGIC, &[1, 0], &(h.len() as u16).to_le_bytes()[..], h.as_bytes()].concat()
        };
        for (descr, data) in
            [("<U2", &[65, 0, 0, 0][..]), ("<U1", &[0xff; 4]), ("<U", &[]), ("<U4611686018427387904", &[])]
        {
            assert!(
                parse(&[&header(descr)[..], data].concat()).expect_err("no text").contains("no text of"),
                "{descr}"
            );
        }
        for bytes in [&b""[..], b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{}", b"\x93NUMPY\x09\x00\x00\x00"] {
            assert!(parse(bytes).is_err());
        }
        let h = "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999, 99999999999), }";
        let bytes = [MAGIC, &[1, 0], &(h.len() as u16).to_le_bytes()[..], h.as_bytes()].concat();
        assert!(parse(&bytes).expect_err("too large").contains("bytes"));
    }
}
