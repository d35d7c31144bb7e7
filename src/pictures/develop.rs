//! Pictures as image inputs take them.

use crate::{Diagnostic, arrays::Arrays, codes, feed};
use mlconv_mil::ir::{ColorLayout, Feature, Function, Port};
use mlconv_tensor::{DType, Tensor, TensorType};
use std::borrow::Cow;

/// `arrays` with the pictures among them that are for image inputs as those take them: `[n, channels, height, width]` of the
/// input's type, where `n` counts pictures. Others stay what they are. A picture of another size is refused.
pub(crate) fn developed<'a>(f: &Function, arrays: &'a Arrays) -> Result<Cow<'a, Arrays>, Diagnostic> {
    let mut out = Cow::Borrowed(arrays);
    let assigned = feed::assigned(f, arrays);
    for ((port, ty), at) in feed::tensor_inputs(f).zip(assigned) {
        let Feature::Image(layout) = port.feature else { continue };
        let Some((name, t)) = at.and_then(|at| arrays.get_index(at)) else { continue };
        if t.dtype() != DType::U8 {
            continue;
        }
        let Some(stack) = Stack::of(t, layout) else { continue };
        stack.check_size(port, ty)?;
        let value = stack.planes(layout, ty.dtype);
        out.to_mut().insert(name.clone(), value);
    }
    Ok(out)
}

/// Pictures of one size.
struct Stack {
    pixels: Vec<u8>,
    count: usize,
    height: usize,
    width: usize,
    channels: usize,
    /// Whether channels come first, as in a tensor.
    planar: bool,
}

impl Stack {
    fn of(t: &Tensor, layout: ColorLayout) -> Option<Self> {
        let gray = matches!(layout, ColorLayout::Grayscale | ColorLayout::GrayscaleF16);
        let (count, height, width, channels, planar) = match *t.shape() {
            [h, w] => (1, h, w, 1, false),
            [h, w, c @ (1 | 3)] => (1, h, w, c, false),
            [n, h, w] if gray => (n, h, w, 1, false),
            [n, h, w, c @ (1 | 3)] => (n, h, w, c, false),
            // In the order of the layout already.
            [n, c, h, w] if c == if gray { 1 } else { 3 } => (n, h, w, c, true),
            _ => return None,
        };
        Some(Self { pixels: t.view::<u8>()?.into_owned(), count, height, width, channels, planar })
    }

    fn check_size(&self, port: &Port, ty: &TensorType) -> Result<(), Diagnostic> {
        let found = [self.height, self.width];
        let dims: Vec<Option<usize>> = ty.shape.iter().skip(2).map(|d| d.as_usize()).collect();
        let fits = |wanted: &[Option<usize>]| wanted.iter().zip(found).all(|(w, n)| w.is_none_or(|w| w == n));
        let choices: Vec<Vec<Option<usize>>> =
            port.shapes.iter().map(|s| s.iter().skip(2).map(|n| usize::try_from(*n).ok()).collect()).collect();
        if fits(&dims) && (choices.is_empty() || choices.iter().any(|c| fits(c))) {
            return Ok(());
        }
        let text = |size: &[Option<usize>]| {
            let one =
                |n: Option<&Option<usize>>| n.copied().flatten().map_or_else(|| "?".to_owned(), |n| n.to_string());
            format!("{} x {}", one(size.get(1)), one(size.first()))
        };
        let takes = if choices.is_empty() { vec![text(&dims)] } else { choices.iter().map(|c| text(c)).collect() };
        let title = format!(
            "input `{}` is a picture of {} x {} pixels, and the model takes {}",
            port.name,
            self.width,
            self.height,
            takes.join(" or ")
        );
        let size = takes.first().filter(|t| !t.contains('?')).map_or("WIDTHxHEIGHT".to_owned(), |t| t.replace(' ', ""));
        let help = format!("stretch it with `--resize {}={size}`, or crop it before", port.name);
        Err(Diagnostic::error(&codes::N0003, title).help(help))
    }

    /// The pictures as tensors, channel by channel.
    fn planes(&self, layout: ColorLayout, dtype: DType) -> Tensor {
        let wanted = if matches!(layout, ColorLayout::Rgb | ColorLayout::Bgr) { 3 } else { 1 };
        let shape = [self.count, wanted, self.height, self.width];
        let bytes = self.bytes(layout, wanted);
        // A cast would be computed when it is read, and have no rows.
        if dtype == DType::F32 {
            return Tensor::from_vec(&shape, bytes.into_iter().map(f32::from).collect());
        }
        Tensor::from_f64(dtype, &shape, &bytes.into_iter().map(f64::from).collect::<Vec<_>>())
    }

    fn bytes(&self, layout: ColorLayout, wanted: usize) -> Vec<u8> {
        if self.planar {
            return self.pixels.clone();
        }
        let area = self.height * self.width;
        let mut out = Vec::with_capacity(self.count * wanted * area);
        for picture in self.pixels.chunks_exact((area * self.channels).max(1)) {
            for plane in 0..wanted {
                let at = if layout == ColorLayout::Bgr { 2 - plane } else { plane };
                out.extend(picture.chunks_exact(self.channels).map(|p| match (p, wanted) {
                    ([r, g, b], 1) => luma(*r, *g, *b),
                    ([gray], _) => *gray,
                    (p, _) => p[at],
                }));
            }
        }
        out
    }
}

/// The brightness of a colour, rounded. Source: ITU-R BT.601, with the integers that Pillow takes.
fn luma(r: u8, g: u8, b: u8) -> u8 {
    ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_mil::ir::Module;

    fn module(ty: &str, layout: ColorLayout) -> Module {
        let text = format!("func @main(%x: {ty}) ios17 {{\n  %y = relu(x=%x)\n  return %y\n}}\n");
        let mut module = mlconv_mil::text::parse(&text).unwrap_or_else(|e| panic!("{e}"));
        module.functions[0].sig.inputs[0].feature = Feature::Image(layout);
        module
    }

    fn given(ty: &str, layout: ColorLayout, picture: Tensor) -> Result<(Vec<usize>, Vec<f64>), Diagnostic> {
        let arrays = [("x".to_owned(), picture)].into_iter().collect();
        let m = module(ty, layout);
        let inputs = feed::match_inputs(&m.functions[0], &arrays)?;
        let t = inputs[0].clone().expect("given");
        Ok((t.shape().to_vec(), t.to_f64()))
    }

    fn two() -> Tensor {
        Tensor::from_vec(&[1, 2, 3], vec![1u8, 2, 3, 250, 0, 10])
    }

    #[test]
    fn channels_come_in_the_order_of_the_layout() {
        let rgb = given("f32[1, 3, 1, 2]", ColorLayout::Rgb, two()).expect("it fits");
        assert_eq!(rgb, (vec![1, 3, 1, 2], vec![1.0, 250.0, 2.0, 0.0, 3.0, 10.0]));
        let bgr = given("f32[1, 3, 1, 2]", ColorLayout::Bgr, two()).expect("it fits");
        assert_eq!(bgr.1, [3.0, 10.0, 2.0, 0.0, 1.0, 250.0]);
        // 0.299 * 250 + 0.114 * 10 = 75.9.
        let gray = given("f32[1, 1, 1, 2]", ColorLayout::Grayscale, two()).expect("it fits");
        assert_eq!(gray, (vec![1, 1, 1, 2], vec![2.0, 76.0]));
        let gray = Tensor::from_vec(&[1, 2], vec![7u8, 9]);
        assert_eq!(
            given("f32[1, 3, 1, 2]", ColorLayout::Rgb, gray).expect("it fits").1,
            [7.0, 9.0, 7.0, 9.0, 7.0, 9.0]
        );
        let planes = Tensor::from_vec(&[1, 3, 1, 2], vec![1u8, 2, 3, 4, 5, 6]);
        assert_eq!(
            given("f32[1, 3, 1, 2]", ColorLayout::Bgr, planes).expect("as it is").1,
            [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
        );
    }

    #[test]
    fn another_size_is_refused_with_both() {
        let d = given("f32[1, 3, 4, 5]", ColorLayout::Rgb, two()).expect_err("2 x 1");
        assert_eq!(d.title, "input `x` is a picture of 2 x 1 pixels, and the model takes 5 x 4");
        assert!(d.help.is_some_and(|h| h.contains("`--resize x=5x4`")));
    }

    #[test]
    fn a_stack_of_pictures_is_that_many_samples() {
        let m = module("f32[1, 3, 1, 2]", ColorLayout::Rgb);
        let stack = Tensor::from_vec(&[2, 1, 2, 3], (0..12).collect::<Vec<u8>>());
        let arrays = [("x".to_owned(), stack)].into_iter().collect();
        let samples = feed::samples(&m.functions[0], &arrays, None).expect("two");
        let second = samples.runs[1][0].as_ref().map(Tensor::to_f64);
        assert_eq!((samples.runs.len(), second), (2, Some(vec![6.0, 9.0, 7.0, 10.0, 8.0, 11.0])));
    }
}
