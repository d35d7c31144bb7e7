//! From the bytes of a file to a picture.

use super::{JPEG, MAX_PIXELS, PNG};
use mlconv_tensor::Tensor;
use png::{ColorType, Transformations};
use std::io::Cursor;
use zune_jpeg::{
    JpegDecoder,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

/// A picture, and what of the file is not in it.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// `u8[height, width]`, or `u8[height, width, 3]`.
    pub picture: Tensor,
    /// What was left out, as sentences.
    pub notes: Vec<String>,
}

/// Decodes a PNG or JPEG file. Colours are as the file stores them: profiles and gamma are not applied.
pub fn decode(bytes: &[u8]) -> Result<Decoded, String> {
    if bytes.starts_with(PNG) {
        return png(bytes).map_err(|why| format!("the PNG file cannot be decoded: {why}"));
    }
    if bytes.starts_with(JPEG) {
        return jpeg(bytes).map_err(|why| format!("the JPEG file cannot be decoded: {why}"));
    }
    Err("the file is no PNG and no JPEG file, and no other pictures are read".to_owned())
}

/// Refuses sizes that no one has memory for.
fn pixels(width: usize, height: usize) -> Result<usize, String> {
    let count = width.checked_mul(height).filter(|n| *n <= MAX_PIXELS);
    count.ok_or_else(|| format!("it is {width} x {height}, and a picture has at most {MAX_PIXELS} pixels"))
}

fn png(bytes: &[u8]) -> Result<Decoded, String> {
    // The bound is for rows and what else the decoder keeps; pixels are bounded below.
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits::default());
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(|e| e.to_string())?;
    let info = reader.info();
    let (width, height) = (info.width as usize, info.height as usize);
    pixels(width, height)?;
    let mut notes = vec![];
    if info.bit_depth == png::BitDepth::Sixteen {
        notes.push("the picture has 16 bits a channel, of which the upper 8 are taken".to_owned());
    }
    if info.animation_control.is_some() {
        notes.push("the picture is animated, and its first frame is taken".to_owned());
    }
    let size = reader.output_buffer_size().ok_or("it is too large")?;
    let mut data = vec![0; size];
    let frame = reader.next_frame(&mut data).map_err(|e| e.to_string())?;
    data.truncate(frame.buffer_size());
    let (colors, alpha) = match frame.color_type {
        ColorType::Grayscale => (1, false),
        ColorType::GrayscaleAlpha => (1, true),
        ColorType::Rgb => (3, false),
        ColorType::Rgba => (3, true),
        ColorType::Indexed => return Err("its palette is missing".to_owned()),
    };
    let (width, height) = (frame.width as usize, frame.height as usize);
    if alpha {
        let samples = colors + 1;
        if data.chunks_exact(samples).any(|p| p[colors] != u8::MAX) {
            notes.push("the picture is transparent in places; its colours are taken, its alpha is left out".to_owned());
        }
        data = data.chunks_exact(samples).flat_map(|p| p[..colors].iter().copied()).collect();
    }
    picture(width, height, colors, data, notes)
}

fn jpeg(bytes: &[u8]) -> Result<Decoded, String> {
    // What is damaged is refused, not filled with grey.
    let options = DecoderOptions::default().set_strict_mode(true).set_max_width(1 << 16).set_max_height(1 << 16);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|e| e.to_string())?;
    let info = decoder.info().ok_or("it has no header")?;
    let (width, height) = (usize::from(info.width), usize::from(info.height));
    pixels(width, height)?;
    let (colors, space) = match info.components {
        1 => (1, ColorSpace::Luma),
        3 => (3, ColorSpace::RGB),
        n => return Err(format!("it has {n} channels, wanted 1 or 3: convert it to RGB")),
    };
    let mut notes = vec![];
    if let Some(turned) = decoder.exif().and_then(|e| orientation(e)).filter(|o| *o > 1) {
        notes.push(format!("the picture is to be shown turned (orientation {turned}), and is taken as it is stored"));
    }
    decoder.set_options(options.jpeg_set_out_colorspace(space));
    let data = decoder.decode().map_err(|e| e.to_string())?;
    picture(width, height, colors, data, notes)
}

fn picture(width: usize, height: usize, colors: usize, data: Vec<u8>, notes: Vec<String>) -> Result<Decoded, String> {
    if width.checked_mul(height).and_then(|n| n.checked_mul(colors)) != Some(data.len()) || data.is_empty() {
        return Err(format!("{} bytes for {width} x {height} pixels of {colors} channels", data.len()));
    }
    let shape: &[usize] = if colors == 1 { &[height, width] } else { &[height, width, colors] };
    Ok(Decoded { picture: Tensor::from_vec(shape, data), notes })
}

/// How a picture is to be turned, from its Exif data. Source: Exif 2.32, 4.6.4, tag 274.
fn orientation(exif: &[u8]) -> Option<u16> {
    let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let little = match tiff.get(..2)? {
        b"II" => true,
        b"MM" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let b: [u8; 2] = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(b) } else { u16::from_be_bytes(b) })
    };
    let long = |at: usize| {
        let b: [u8; 4] = tiff.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(b) } else { u32::from_be_bytes(b) })
    };
    let table = usize::try_from(long(4)?).ok()?;
    (0..usize::from(short(table)?)).find_map(|i| {
        let entry = table.checked_add(2 + 12 * i)?;
        (short(entry)? == 274).then(|| short(entry + 8)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orientations_are_read_in_both_orders() {
        let little = b"Exif\0\0II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
        let big = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0";
        assert_eq!((orientation(little), orientation(big)), (Some(6), Some(3)));
        assert_eq!(orientation(b"II\x2a\0\xff\xff\xff\xff"), None);
        assert_eq!(orientation(b""), None);
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        assert!(decode(b"").is_err_and(|e| e.contains("no PNG and no JPEG")));
        assert!(decode(PNG).is_err_and(|e| e.contains("PNG file cannot be decoded")));
        assert!(decode(b"\xff\xd8\xff\xe0").is_err_and(|e| e.contains("JPEG file cannot be decoded")));
        assert!(pixels(1 << 16, 1 << 16).is_err_and(|e| e.contains("65536 x 65536")));
        assert!(pixels(usize::MAX, 2).is_err());
    }
}
