//! Images, flexible shapes and default values.

use super::{
    Artifact, Findings,
    interface::{array_dtype, is_optional, kind, place},
    view::Body,
};
use mlconv_proto::coreml::{
    ArrayFeatureType, FeatureDescription, ImageFeatureType, SizeRange,
    array_feature_type::{DefaultOptionalValue, ShapeFlexibility},
    feature_type::Type,
    image_feature_type::{ColorSpace, SizeFlexibility},
};
use mlconv_tensor::DType;

/// Core ML's limit on enumerated shapes.
const MAX_SHAPES: usize = 128;

pub(super) fn images(a: &Artifact<'_>, out: &mut Findings) {
    for (i, body) in a.described() {
        for feature in i.inputs.iter().chain(i.outputs) {
            let Some(Type::ImageType(image)) = kind(feature) else { continue };
            let mut add = |found: String| out.add(place(i, feature), found);
            let space = ColorSpace::try_from(image.color_space).unwrap_or(ColorSpace::InvalidColorSpace);
            if space == ColorSpace::InvalidColorSpace {
                add("no colour space".into());
                continue;
            }
            if space == ColorSpace::GrayscaleFloat16 && a.version() < 7 {
                add(format!("f16 pixels in version {}", a.version()));
            }
            if image.width < 1 || image.height < 1 {
                add(format!("{} × {}", image.width, image.height));
            }
            if !sizes_contain_default(image) {
                add(format!("the default {} × {} is not allowed", image.width, image.height));
            }
            if !tensor_fits(image, space, body, feature, a.version()) {
                add(format!(
                    "an image of {} × {} for {}",
                    image.width,
                    image.height,
                    super::view::show(body.ty(&feature.name))
                ));
            }
        }
    }
}

fn sizes_contain_default(image: &ImageFeatureType) -> bool {
    let within = |range: Option<SizeRange>, size: i64| {
        range.is_some_and(|r| {
            u64::try_from(size).is_ok_and(|s| s >= r.lower_bound) && (r.upper_bound <= 0 || size <= r.upper_bound)
        })
    };
    match &image.size_flexibility {
        None => true,
        Some(SizeFlexibility::EnumeratedSizes(e)) => {
            let is_default =
                |w: u64, h: u64| i64::try_from(w) == Ok(image.width) && i64::try_from(h) == Ok(image.height);
            e.sizes.iter().any(|s| is_default(s.width, s.height))
        }
        Some(SizeFlexibility::ImageSizeRange(r)) => {
            within(r.width_range, image.width) && within(r.height_range, image.height)
        }
    }
}

fn tensor_fits(
    image: &ImageFeatureType,
    space: ColorSpace,
    body: &Body<'_>,
    feature: &FeatureDescription,
    version: i32,
) -> bool {
    let Some(t) = body.ty(&feature.name).and_then(super::view::tensor) else { return false };
    let (channels, dtype) = match space {
        ColorSpace::Rgb | ColorSpace::Bgr => (3, t.dtype == Some(DType::F32)),
        // From version 8 a grey image may come as it is.
        ColorSpace::Grayscale => (1, t.dtype == Some(DType::F32) || (version >= 8 && t.dtype == Some(DType::U8))),
        ColorSpace::GrayscaleFloat16 => (1, t.dtype == Some(DType::F16)),
        ColorSpace::InvalidColorSpace => return false,
    };
    let is = |found: Option<u64>, want: i64| found.is_none() || found == u64::try_from(want).ok();
    let flexible = image.size_flexibility.is_some();
    let [batch, channel, height, width] = t.dims[..] else { return false };
    let sized = flexible || (is(height, image.height) && is(width, image.width));
    dtype && is(batch, 1) && is(channel, channels) && sized
}

pub(super) fn flexible(a: &Artifact<'_>, out: &mut Findings) {
    for i in &a.interfaces {
        let mut enumerated: Vec<usize> = vec![];
        let mut ranges = 0;
        for feature in i.inputs {
            let Some(Type::MultiArrayType(array)) = kind(feature) else { continue };
            match &array.shape_flexibility {
                None => {}
                Some(ShapeFlexibility::EnumeratedShapes(e)) => enumerated.push(e.shapes.len()),
                Some(ShapeFlexibility::ShapeRange(_)) => ranges += 1,
            }
        }
        if !enumerated.is_empty() && ranges > 0 {
            out.add(i.function, "enumerated shapes and ranges");
        }
        if !enumerated.is_empty() && !i.states.is_empty() {
            out.add(i.function, "enumerated shapes and states");
        }
        if enumerated.len() > 1 && (a.version() < 9 || enumerated.iter().any(|n| *n != enumerated[0])) {
            out.add(i.function, format!("{enumerated:?} enumerated shapes in version {}", a.version()));
        }
        for feature in i.inputs.iter().chain(i.outputs) {
            let Some(Type::MultiArrayType(array)) = kind(feature) else { continue };
            if let Some(found) = misfit(array) {
                out.add(place(i, feature), found);
            }
        }
    }
}

/// What is wrong with an array's flexibility.
fn misfit(array: &ArrayFeatureType) -> Option<String> {
    let default = &array.shape;
    match array.shape_flexibility.as_ref()? {
        ShapeFlexibility::EnumeratedShapes(e) => {
            let shapes: Vec<&Vec<i64>> = e.shapes.iter().map(|s| &s.shape).collect();
            let ok = (1..=MAX_SHAPES).contains(&shapes.len())
                && shapes.contains(&default)
                && shapes.iter().all(|s| s.len() == default.len() && s.iter().all(|d| *d >= 1));
            (!ok).then(|| format!("{} enumerated shapes for the default {default:?}", shapes.len()))
        }
        ShapeFlexibility::ShapeRange(r) => {
            let within = |(d, r): (&i64, &SizeRange)| {
                let upper = u64::try_from(r.upper_bound).unwrap_or(0);
                (1..=upper).contains(&r.lower_bound)
                    && u64::try_from(*d).is_ok_and(|d| (r.lower_bound..=upper).contains(&d))
            };
            let ok = r.size_ranges.len() == default.len() && default.iter().zip(&r.size_ranges).all(within);
            let shown: Vec<String> =
                r.size_ranges.iter().map(|r| format!("{}..={}", r.lower_bound, r.upper_bound)).collect();
            (!ok).then(|| format!("ranges [{}] for the default {default:?}", shown.join(", ")))
        }
    }
}

pub(super) fn defaults(a: &Artifact<'_>, out: &mut Findings) {
    for i in &a.interfaces {
        for feature in i.inputs {
            let Some(Type::MultiArrayType(array)) = kind(feature) else { continue };
            let default = array.default_optional_value.as_ref();
            let fits = match (array_dtype(array), default) {
                (_, None) => !is_optional(feature),
                (Some(DType::F16 | DType::F32), Some(DefaultOptionalValue::FloatDefaultValue(_))) => true,
                (Some(DType::F64), Some(DefaultOptionalValue::DoubleDefaultValue(_))) => true,
                (Some(DType::I32), Some(DefaultOptionalValue::IntDefaultValue(_))) => true,
                (Some(DType::I8), Some(DefaultOptionalValue::IntDefaultValue(v))) => i8::try_from(*v).is_ok(),
                _ => false,
            };
            if !fits {
                out.add(place(i, feature), format!("the default {default:?}"));
            }
            let enumerated = matches!(array.shape_flexibility, Some(ShapeFlexibility::EnumeratedShapes(_)));
            if is_optional(feature) && enumerated {
                out.add(place(i, feature), "optional, of enumerated shapes");
            }
        }
    }
}
