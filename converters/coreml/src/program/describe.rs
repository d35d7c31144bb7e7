//! Model descriptions: the interface of functions, both ways.

use crate::{Error, Result};
use mlconv_mil::ir::{ColorLayout, Feature, Port};
use mlconv_proto::coreml::{
    ArrayFeatureType, DictionaryFeatureType, FeatureDescription, FeatureType, ImageFeatureType, Int64FeatureType,
    SizeRange, StateFeatureType, StringFeatureType,
    array_feature_type::{
        ArrayDataType, DefaultOptionalValue, EnumeratedShapes, Shape as ShapeProto, ShapeFlexibility, ShapeRange,
    },
    dictionary_feature_type, feature_type,
    image_feature_type::{self, ColorSpace, EnumeratedImageSizes, ImageSize, ImageSizeRange, SizeFlexibility},
    state_feature_type,
};
use mlconv_tensor::{DType, Dim, SymbolInfo, Symbols, TensorType, Type};

/// Element types of arrays at an interface.
const ARRAYS: [(DType, ArrayDataType); 5] = [
    (DType::F32, ArrayDataType::Float32),
    (DType::F64, ArrayDataType::Double),
    (DType::I32, ArrayDataType::Int32),
    (DType::F16, ArrayDataType::Float16),
    (DType::I8, ArrayDataType::Int8),
];

const COLORS: [(ColorLayout, ColorSpace); 4] = [
    (ColorLayout::Grayscale, ColorSpace::Grayscale),
    (ColorLayout::Rgb, ColorSpace::Rgb),
    (ColorLayout::Bgr, ColorSpace::Bgr),
    (ColorLayout::GrayscaleF16, ColorSpace::GrayscaleFloat16),
];

/// The description of one port. `output` ports state their shape only where it is wholly known.
pub(super) fn feature(
    name: &str,
    port: &Port,
    ty: &Type,
    symbols: &Symbols,
    output: bool,
) -> Result<FeatureDescription> {
    let kind = match ty {
        Type::Tensor(t) => match (port.feature, t.dtype) {
            (Feature::Image(layout), _) => feature_type::Type::ImageType(image(port, layout, t, symbols, output)),
            (Feature::Tensor, DType::Str) => feature_type::Type::StringType(StringFeatureType::default()),
            (Feature::Tensor, DType::I64) => feature_type::Type::Int64Type(Int64FeatureType::default()),
            (Feature::Tensor, _) => feature_type::Type::MultiArrayType(array(port, t, symbols, output)?),
        },
        Type::State(t) => {
            let array = array(port, t, symbols, false)?;
            let state = StateFeatureType { r#type: Some(state_feature_type::Type::ArrayType(array)) };
            feature_type::Type::StateType(state)
        }
        Type::Dict { key, .. } => {
            let key_type = match key {
                DType::Str => dictionary_feature_type::KeyType::StringKeyType(StringFeatureType::default()),
                _ => dictionary_feature_type::KeyType::Int64KeyType(Int64FeatureType::default()),
            };
            feature_type::Type::DictionaryType(DictionaryFeatureType { key_type: Some(key_type) })
        }
        Type::List { .. } | Type::Unknown => return Err(Error::Interface { name: name.to_owned(), found: ty.clone() }),
    };
    Ok(FeatureDescription {
        name: name.to_owned(),
        short_description: port.description.clone(),
        r#type: Some(FeatureType { is_optional: port.default.is_some() && !output, r#type: Some(kind) }),
    })
}

fn array(port: &Port, t: &TensorType, symbols: &Symbols, output: bool) -> Result<ArrayFeatureType> {
    let unknown = || Error::Interface { name: port.name.to_string(), found: Type::Tensor(t.clone()) };
    let data_type = ARRAYS.iter().find(|(d, _)| *d == t.dtype).ok_or_else(unknown)?.1 as i32;
    let known: Option<Vec<i64>> = t.shape.iter().map(Dim::as_known).collect();
    let mut out = ArrayFeatureType { data_type, ..ArrayFeatureType::default() };
    if output {
        // A wrong static shape makes Core ML return padded arrays; an unknown one is left out.
        out.shape = known.filter(|s| !s.is_empty()).unwrap_or_default();
        return Ok(out);
    }
    let sizes: Vec<(i64, i64, i64)> = t.shape.iter().map(|d| size(d, symbols)).collect();
    out.shape = sizes.iter().map(|(_, default, _)| *default).collect();
    if !port.shapes.is_empty() {
        let shapes = port.shapes.iter().map(|s| ShapeProto { shape: s.clone() }).collect();
        out.shape.clone_from(&port.shapes[0]);
        out.shape_flexibility = Some(ShapeFlexibility::EnumeratedShapes(EnumeratedShapes { shapes }));
    } else if known.is_none() {
        let range = |(lo, _, hi): &(i64, i64, i64)| SizeRange { lower_bound: (*lo).max(0) as u64, upper_bound: *hi };
        let size_ranges = sizes.iter().map(range).collect();
        out.shape_flexibility = Some(ShapeFlexibility::ShapeRange(ShapeRange { size_ranges }));
    }
    out.default_optional_value = port.default.map(|d| match t.dtype {
        DType::I32 | DType::I8 => DefaultOptionalValue::IntDefaultValue(d as i32),
        DType::F64 => DefaultOptionalValue::DoubleDefaultValue(d),
        _ => DefaultOptionalValue::FloatDefaultValue(d as f32),
    });
    Ok(out)
}

/// Least, default and greatest size of a dimension.
fn size(d: &Dim, symbols: &Symbols) -> (i64, i64, i64) {
    let default = d.eval(&|s| Some(symbols.default_of(s))).unwrap_or(1);
    let (lo, hi) = d.bounds(symbols);
    (lo.unwrap_or(1).max(0), default, hi.unwrap_or(default).max(default))
}

fn image(port: &Port, layout: ColorLayout, t: &TensorType, symbols: &Symbols, output: bool) -> ImageFeatureType {
    if output && t.shape.known().is_none() {
        // Core ML fails on an output of other sizes than the default one, unless any are declared, as its own tools do.
        let any = Some(SizeRange { lower_bound: 1, upper_bound: -1 });
        let range = ImageSizeRange { width_range: any, height_range: any };
        let size_flexibility = Some(SizeFlexibility::ImageSizeRange(range));
        return ImageFeatureType { width: 1, height: 1, color_space: color(layout) as i32, size_flexibility };
    }
    let axis = |i: usize| t.shape.get(i).map_or((1, 1, 1), |d| size(d, symbols));
    let (height, width) = (axis(2), axis(3));
    let range = |(lo, _, hi): (i64, i64, i64)| Some(SizeRange { lower_bound: lo.max(0) as u64, upper_bound: hi });
    let size = |s: &Vec<i64>| ImageSize {
        height: s.get(2).map_or(1, |n| (*n).max(0) as u64),
        width: s.get(3).map_or(1, |n| (*n).max(0) as u64),
    };
    let size_flexibility = if !port.shapes.is_empty() {
        let sizes = port.shapes.iter().map(size).collect();
        Some(SizeFlexibility::EnumeratedSizes(EnumeratedImageSizes { sizes }))
    } else if t.shape.known().is_none() {
        let (width_range, height_range) = (range(width), range(height));
        Some(SizeFlexibility::ImageSizeRange(ImageSizeRange { width_range, height_range }))
    } else {
        None
    };
    ImageFeatureType { width: width.1, height: height.1, color_space: color(layout) as i32, size_flexibility }
}

fn color(layout: ColorLayout) -> ColorSpace {
    COLORS.iter().find(|(l, _)| *l == layout).map_or(ColorSpace::Rgb, |(_, c)| *c)
}

/// Adds to `port` what a description says, and to `symbols` the ranges of the sizes in `ty` that are not fixed.
pub(super) fn read_feature(feature: &FeatureDescription, ty: &Type, port: &mut Port, symbols: &mut Symbols) {
    port.description.clone_from(&feature.short_description);
    let Some(kind) = &feature.r#type else { return };
    let shape = match ty {
        Type::Tensor(t) | Type::State(t) => &t.shape,
        Type::List { .. } | Type::Dict { .. } | Type::Unknown => return,
    };
    let mut set = |axis: usize, min: i64, max: i64, default: Option<i64>| {
        if let Some(name) = shape.get(axis).and_then(Dim::as_symbol) {
            let max = (max >= min).then_some(max);
            symbols.set(name.clone(), SymbolInfo { min, max, default });
        }
    };
    match &kind.r#type {
        Some(feature_type::Type::MultiArrayType(a)) => {
            match &a.shape_flexibility {
                Some(ShapeFlexibility::ShapeRange(r)) => {
                    for (axis, r) in r.size_ranges.iter().enumerate() {
                        let min = i64::try_from(r.lower_bound).unwrap_or(i64::MAX);
                        set(axis, min, r.upper_bound, a.shape.get(axis).copied());
                    }
                }
                Some(ShapeFlexibility::EnumeratedShapes(e)) => {
                    port.shapes = e.shapes.iter().map(|s| s.shape.clone()).collect();
                    // The default comes first, whatever the order in the file.
                    if let Some(at) = port.shapes.iter().position(|s| *s == a.shape) {
                        port.shapes[..=at].rotate_right(1);
                    }
                    enumerated(&port.shapes, &mut set);
                }
                None => {}
            }
            if kind.is_optional {
                port.default = Some(match a.default_optional_value {
                    Some(DefaultOptionalValue::IntDefaultValue(i)) => f64::from(i),
                    Some(DefaultOptionalValue::FloatDefaultValue(x)) => f64::from(x),
                    Some(DefaultOptionalValue::DoubleDefaultValue(x)) => x,
                    None => 0.0,
                });
            }
        }
        Some(feature_type::Type::ImageType(i)) => {
            let color = ColorSpace::try_from(i.color_space).unwrap_or_default();
            if let Some((layout, _)) = COLORS.iter().find(|(_, c)| *c == color) {
                port.feature = Feature::Image(*layout);
            }
            match &i.size_flexibility {
                Some(SizeFlexibility::ImageSizeRange(r)) => {
                    for (axis, range, default) in [(2, &r.height_range, i.height), (3, &r.width_range, i.width)] {
                        if let Some(r) = range {
                            set(axis, i64::try_from(r.lower_bound).unwrap_or(i64::MAX), r.upper_bound, Some(default));
                        }
                    }
                }
                Some(SizeFlexibility::EnumeratedSizes(e)) => {
                    port.shapes = e.sizes.iter().map(|s| image_shape(shape, s)).collect();
                    enumerated(&port.shapes, &mut set);
                }
                None => {}
            }
        }
        _ => {}
    }
}

fn image_shape(shape: &[Dim], s: &image_feature_type::ImageSize) -> Vec<i64> {
    let clamp = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let own = |i: usize| shape.get(i).and_then(Dim::as_known).unwrap_or(1);
    vec![own(0), own(1), clamp(s.height), clamp(s.width)]
}

/// The range that enumerated shapes span along each axis.
fn enumerated(shapes: &[Vec<i64>], set: &mut dyn FnMut(usize, i64, i64, Option<i64>)) {
    let Some(first) = shapes.first() else { return };
    for axis in 0..first.len() {
        let sizes = || shapes.iter().filter_map(|s| s.get(axis));
        if let (Some(min), Some(max)) = (sizes().min(), sizes().max()) {
            set(axis, *min, *max, first.get(axis).copied());
        }
    }
}
