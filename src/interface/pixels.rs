//! Tensors that become images: the ops that compute them of pixels.

use super::{
    image::{Image, Layout, channels},
    ports::{begin, input, insert, output, refused},
};
use crate::Diagnostic;
use mlconv_mil::{
    ir::{ColorLayout, Feature, Function, Port, Value},
    ops::{Add, Cast, Const, Mul, Transpose},
    schema::Opset,
};
use mlconv_tensor::{DType, Dim, Shape, Tensor, TensorType, Type};

impl Layout {
    fn color(self) -> ColorLayout {
        match self {
            Self::Rgb => ColorLayout::Rgb,
            Self::Bgr => ColorLayout::Bgr,
            Self::Gray => ColorLayout::Grayscale,
            Self::Gray16 => ColorLayout::GrayscaleF16,
        }
    }

    /// The layout of an image of a package.
    pub(super) fn of_color(color: ColorLayout) -> Self {
        match color {
            ColorLayout::Rgb => Self::Rgb,
            ColorLayout::Bgr => Self::Bgr,
            ColorLayout::Grayscale => Self::Gray,
            ColorLayout::GrayscaleF16 => Self::Gray16,
        }
    }

    /// The element type that Core ML hands pixels over in.
    fn dtype(self) -> DType {
        if self == Self::Gray16 { DType::F16 } else { DType::F32 }
    }

    fn check(self, f: &Function, option: &str) -> Result<(), Diagnostic> {
        if self != Self::Gray16 || f.opset >= Opset::Ios16 {
            return Ok(());
        }
        let d = refused(option, &format!("{} has no images of half precision", f.opset));
        Err(d.help("convert with `--target ios16` or a newer one"))
    }
}

impl Image {
    /// Makes the input an image, and what was the input a value that is computed of it.
    pub(super) fn apply(&mut self, f: &mut Function) -> Result<(), Diagnostic> {
        let option = self.name.as_ref().map_or_else(|| "--image".to_owned(), |n| format!("--image {n}"));
        let at = input(f, &option, self.name.as_deref())?;
        let v = f.inputs()[at];
        let name = f.sig.inputs[at].name.to_string();
        let Type::Tensor(ty) = f.ty(v).clone() else {
            return Err(refused(&option, "it is a state, and no image"));
        };
        if f.sig.inputs[at].feature != Feature::Tensor {
            return Err(refused(&option, "it is an image already"));
        }
        if f.sig.inputs[at].default.is_some() {
            return Err(refused(&option, "it is optional, and Core ML has no default for an image"));
        }
        let form = Form::of(&ty, self.layout).map_err(|(why, help)| {
            let d = refused(&option, &why);
            if help.is_empty() { d } else { d.help(help.replace("NAME", &name)) }
        })?;
        let layout = form.layout;
        layout.check(f, &option)?;
        let (factor, term) = self.affine(layout.channels());
        for n in [&self.scale, &self.mean, &self.std, &self.bias] {
            if n.len() > 1 && n.len() != layout.channels() {
                return Err(refused(&option, &format!("{} numbers for {}", n.len(), channels(layout.channels()))));
            }
        }
        let plain = factor.iter().all(|x| *x == 1.0) && term.iter().all(|x| *x == 0.0);
        if !ty.dtype.is_float() && !plain {
            let d = refused(&option, &format!("the input is {ty}, and pixels that are scaled are no integers"));
            return Err(d.help("leave `scale`, `mean`, `std` and `bias` out"));
        }
        (self.name, self.layout) = (Some(name), Some(layout));
        self.rewrite(f, at, &ty, &form, (&factor, &term))
    }

    fn rewrite(
        &self,
        f: &mut Function,
        at: usize,
        ty: &TensorType,
        form: &Form,
        (factor, term): (&[f64], &[f64]),
    ) -> Result<(), Diagnostic> {
        let v = f.inputs()[at];
        let hint = f.value(v).hint.to_string();
        let old = f.retype_input(v, TensorType::new(form.layout.dtype(), form.shape.clone()));
        let place = begin(f);
        let mut now = v;
        if form.layout == Layout::Gray16 && ty.dtype != DType::F16 {
            now = insert(f, place, &hint, Cast { x: now, dtype: DType::F32 })?;
        }
        let dtype = f.ty(now).tensor().map_or(DType::F32, |t| t.dtype);
        if factor.iter().any(|x| *x != 1.0) {
            let y = insert(f, place, &format!("{hint}_scale"), Const { val: per_channel(dtype, factor) })?;
            now = insert(f, place, &format!("{hint}_scaled"), Mul { x: now, y })?;
        }
        if term.iter().any(|x| *x != 0.0) {
            let y = insert(f, place, &format!("{hint}_bias"), Const { val: per_channel(dtype, term) })?;
            now = insert(f, place, &format!("{hint}_biased"), Add { x: now, y })?;
        }
        if ty.dtype != dtype {
            now = insert(f, place, &hint, Cast { x: now, dtype: ty.dtype })?;
        }
        if form.channels_last {
            now = insert(f, place, &hint, Transpose { x: now, perm: [0, 2, 3, 1].into_iter().collect() })?;
        }
        f.replace_uses(old, now);
        let port = &mut f.sig.inputs[at];
        port.feature = Feature::Image(form.layout.color());
        if form.channels_last {
            for shape in &mut port.shapes {
                if let [n, h, w, c] = **shape {
                    *shape = vec![n, c, h, w];
                }
            }
        }
        Ok(())
    }
}

/// One number where all are the same, else one for each channel of `[1, channels, height, width]`.
fn per_channel(dtype: DType, values: &[f64]) -> Tensor {
    match values {
        [first, rest @ ..] if rest.iter().all(|x| x == first) => Tensor::splat(dtype, &[], *first),
        _ => Tensor::from_f64(dtype, &[1, values.len(), 1, 1], values),
    }
}

/// How a tensor can be an image.
struct Form {
    layout: Layout,
    /// The shape of the image, channels first.
    shape: Shape,
    /// Whether the tensor has its channels last.
    channels_last: bool,
}

impl Form {
    /// Why not, and what to do, where `NAME` stands for the input.
    fn of(ty: &TensorType, layout: Option<Layout>) -> Result<Self, (String, String)> {
        let wanted = "and an image is [1, channels, height, width]";
        let dims: Vec<Dim> = ty.shape.iter().cloned().collect();
        let [batch, a, b, c] = dims.as_slice() else {
            return Err((format!("the tensor is {ty}, {wanted}"), String::new()));
        };
        if !batch.is(1) {
            let fix = format!("fix the first size with `--input NAME={}`", fixed(&dims, layout));
            let fix = if batch.as_known().is_some() { String::new() } else { fix };
            return Err((format!("the tensor is {ty}, {wanted}: one at a time"), fix));
        }
        let count = |d: &Dim| d.as_usize().filter(|n| [1, 3].contains(n));
        let fits = |d: &Dim| count(d).is_some_and(|n| layout.is_none_or(|l| l.channels() == n));
        let (at, channels_last) = match (fits(a), fits(c)) {
            (true, _) => (a, false),
            (false, true) => (c, true),
            (false, false) => {
                let want = layout.map_or_else(|| "1 or 3".to_owned(), |l| format!("{} of {}", l.channels(), l.name()));
                let open = a.as_known().is_none() || c.as_known().is_none();
                let fix = format!("fix the channels with `--input NAME={}`", fixed(&dims, layout));
                let fix = if open { fix } else { String::new() };
                return Err((format!("the tensor is {ty}, {wanted}, with {want} channels"), fix));
            }
        };
        let own = if count(at) == Some(1) { Layout::Gray } else { Layout::Rgb };
        let (h, w, ch) = if channels_last { (a, b, c) } else { (b, c, a) };
        let shape = [batch.clone(), ch.clone(), h.clone(), w.clone()].into_iter().collect();
        Ok(Self { layout: layout.unwrap_or(own), shape, channels_last })
    }
}

/// What may be asked of an input that is to be an image: the sizes that it has, and usual ones where they are open.
fn fixed(dims: &[Dim], layout: Option<Layout>) -> String {
    let channels = layout.map_or(3, Layout::channels) as i64;
    let is_last =
        dims.get(1).is_some_and(|d| d.as_known().is_some()) && dims.get(3).is_some_and(|d| d.as_known().is_none());
    let usual = if is_last { [1, 224, 224, channels] } else { [1, channels, 224, 224] };
    let sizes = dims.iter().zip(usual).map(|(d, usual)| d.as_known().unwrap_or(usual).to_string());
    sizes.collect::<Vec<_>>().join("x")
}

/// Makes an output an image: its elements are pixels from 0 to 255.
pub(super) fn of_output(f: &mut Function, name: &str, layout: Layout) -> Result<(), Diagnostic> {
    let option = format!("--image-output {name}");
    let at = output(f, &option, Some(name))?;
    layout.check(f, &option)?;
    let v = f.outputs()[at];
    let form = f.ty(v).tensor().map(|ty| Form::of(ty, Some(layout)).map(|form| (form, ty.dtype)));
    let (form, dtype) = match form {
        None => return Err(refused(&option, &format!("it is {}, and no image", f.ty(v)))),
        Some(Err((why, _))) => return Err(refused(&option, &why)),
        Some(Ok(form)) => form,
    };
    let mut outputs: Vec<(Port, Value)> = f.sig.outputs.iter().cloned().zip(f.outputs().iter().copied()).collect();
    let place = super::classes::before_classify(f);
    let mut now = v;
    if form.channels_last {
        now = insert(f, place, name, Transpose { x: now, perm: [0, 3, 1, 2].into_iter().collect() })?;
    }
    if dtype != layout.dtype() {
        now = insert(f, place, name, Cast { x: now, dtype: layout.dtype() })?;
    }
    outputs[at].0.feature = Feature::Image(layout.color());
    outputs[at].1 = now;
    f.set_outputs(outputs);
    Ok(())
}
