//! What is asked of the source of a package, beside what was asked for when the package was written.

use super::{Classes, Floats, Image, Interface, Layout};
use crate::{Diagnostic, Failure, codes, feed::means_port};
use mlconv_mil::ir::{Feature, Function, Module};
use std::fmt;

impl Interface {
    /// What `self` and the metadata of a package ask for together; ranges are as `self` says. What contradicts the package is
    /// refused: the source would be compared as another model than the one that the package was made of.
    pub fn with_recorded(mut self, package: &Module) -> Result<Self, Failure> {
        let recorded = Self { ranges: vec![], ..Self::recorded(package) };
        let Some(f) = package.functions.first() else { return Ok(self.over(recorded)) };
        self.name_as(f);
        let bad = self.contradictions(&recorded, f);
        if bad.is_empty() { Ok(recorded.over(self)) } else { Err(bad) }
    }

    /// Calls inputs and outputs as the package's source does.
    fn name_as(&mut self, f: &Function) {
        let inputs = || f.sig.inputs.iter();
        let own = |name: &mut String| {
            if let Some(port) = inputs().chain(&f.sig.outputs).find(|p| means_port(name, p)) {
                *name = port.name.to_string();
            }
        };
        for image in &mut self.images {
            let only = inputs().next().filter(|_| f.sig.inputs.len() == 1).map(|p| p.name.to_string());
            image.name = image.name.take().or(only);
            image.name.as_mut().into_iter().for_each(own);
        }
        self.output_images.iter_mut().for_each(|(name, _)| own(name));
        self.optional.iter_mut().for_each(|(name, _)| own(name));
        self.renamed.iter_mut().for_each(|(name, _)| own(name));
    }

    /// What `self` says otherwise than the package whose function is `f`.
    fn contradictions(&self, recorded: &Self, f: &Function) -> Vec<Diagnostic> {
        let mut out = vec![];
        for image in &self.images {
            let theirs = recorded.images.iter().find(|r| r.name == image.name).cloned();
            let port = f.sig.inputs.iter().find(|p| image.name.as_deref() == Some(&p.name));
            // A package of another tool says the layout only.
            let theirs = theirs.or_else(|| match port?.feature {
                Feature::Image(color) => Some(Image { layout: Some(Layout::of_color(color)), ..image.clone() }),
                Feature::Tensor => None,
            });
            let other = theirs.filter(|theirs| !image.agrees(theirs));
            out.extend(other.map(|theirs| contradiction("--image", image, &theirs)));
        }
        let pair = |(name, layout): &(String, Layout)| format!("{name}={}", layout.name());
        out.extend(differing(&self.output_images, &recorded.output_images, "--image-output", pair));
        out.extend(differing(&self.optional, &recorded.optional, "--optional", |(n, v)| format!("{n}={v}")));
        out.extend(differing(&self.renamed, &recorded.renamed, "--rename", |(n, v)| format!("{n}={v}")));
        if let (Some(own), Some(theirs)) = (self.floats, recorded.floats)
            && own != theirs
        {
            out.push(contradiction("--io-precision", own.name(), theirs.name()));
        }
        out.extend(
            self.classes.as_ref().zip(recorded.classes.as_ref()).and_then(|(own, theirs)| own.contradicts(theirs)),
        );
        out
    }
}

/// What both say of one name, and not the same.
fn differing<T: PartialEq>(
    own: &[(String, T)],
    theirs: &[(String, T)],
    option: &str,
    text: impl Fn(&(String, T)) -> String,
) -> Vec<Diagnostic> {
    let other = |a: &&(String, T)| theirs.iter().find(|b| a.0 == b.0 && a.1 != b.1);
    let pairs = own.iter().filter_map(|a| Some((a, other(&a)?)));
    pairs.map(|(a, b)| contradiction(option, text(a), text(b))).collect()
}

fn contradiction(option: &str, asked: impl fmt::Display, recorded: impl fmt::Display) -> Diagnostic {
    said(&format!("`{option} {asked}`"), &format!("with `{option} {recorded}`"))
}

fn said(asked: &str, recorded: &str) -> Diagnostic {
    let d = Diagnostic::error(&codes::L0001, format!("{asked} contradicts the package, which was made {recorded}"));
    d.help("leave it out: what the package was made with is asked of the source as well")
}

impl Image {
    /// Whether both make the same of pixels.
    fn agrees(&self, other: &Self) -> bool {
        let channels = other.layout.map_or(3, Layout::channels);
        let ((a, b), (c, d)) = (self.affine(channels), other.affine(channels));
        // A mean and a bias that say the same are rounded otherwise.
        let close = |(x, y): (&f64, &f64)| (x - y).abs() <= 1e-9 * x.abs().max(y.abs());
        let same = self.layout.is_none() || self.layout == other.layout;
        same && a.iter().zip(&c).all(close) && b.iter().zip(&d).all(close)
    }
}

impl Classes {
    /// The first thing that is said otherwise of classes.
    fn contradicts(&self, recorded: &Self) -> Option<Diagnostic> {
        let (own, theirs) = (self.labels.texts(), recorded.labels.texts());
        if own.len() != theirs.len() {
            let count = |n: usize| format!("{n} labels");
            let title = format!("with {}", count(theirs.len()));
            return Some(said(&format!("`--class-labels`, which gives {},", count(own.len())), &title));
        }
        if let Some((own, theirs)) = own.iter().zip(&theirs).find(|(a, b)| a != b) {
            let with = format!("with `{theirs}` in its place");
            return Some(said(&format!("`--class-labels`, which gives `{own}`,"), &with));
        }
        if self.softmax && !recorded.softmax {
            return Some(said("`--class-softmax`", "without it"));
        }
        let outputs = self.output.as_ref().zip(recorded.output.as_ref()).filter(|(a, b)| a != b);
        outputs.map(|(a, b)| contradiction("--class-output", a, b))
    }
}

impl Floats {
    fn name(self) -> &'static str {
        match self {
            Self::Fp16 => "fp16",
            Self::Fp32 => "fp32",
        }
    }
}
