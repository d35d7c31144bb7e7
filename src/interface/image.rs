//! What a user says of an image: its layout, and what becomes of its pixels.

use crate::names::nearest;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The channels of an image, in the order in which the model gets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Red, green and blue, of 8 bits.
    Rgb,
    /// Blue, green and red, of 8 bits.
    Bgr,
    /// One channel of 8 bits.
    Gray,
    /// One channel of half precision.
    Gray16,
}

const LAYOUTS: [(&str, Layout); 6] = [
    ("rgb", Layout::Rgb),
    ("bgr", Layout::Bgr),
    ("gray", Layout::Gray),
    ("gray16", Layout::Gray16),
    ("grayscale", Layout::Gray),
    ("grayscale16", Layout::Gray16),
];

impl Layout {
    /// The layout that a word stands for.
    pub fn of(word: &str) -> Option<Self> {
        LAYOUTS.iter().find(|(name, _)| *name == word).map(|(_, l)| *l)
    }

    pub(super) fn name(self) -> &'static str {
        LAYOUTS.iter().find(|(_, l)| *l == self).map_or("rgb", |(name, _)| name)
    }

    /// How many there are.
    pub(crate) fn channels(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Gray | Self::Gray16 => 1,
        }
    }
}

/// An input that is an image. The model gets `(pixel * scale - mean) / std`, or `pixel * scale + bias`, where each is one
/// number for all channels, or one for each in the order of the layout.
///
/// As text it is `NAME=LAYOUT,scale=1/255,mean=0.5,std=0.2:0.2:0.3`; see docs/interface.md.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Image {
    /// The input; `None` where there is only one.
    pub name: Option<String>,
    /// Its channels; `None` is RGB or grayscale, as the tensor has channels.
    pub layout: Option<Layout>,
    /// What pixels are multiplied by first. Each list has one number, or one a channel; empty is none.
    pub scale: Vec<f64>,
    /// What is subtracted then.
    pub mean: Vec<f64>,
    /// What is divided by in the end.
    pub std: Vec<f64>,
    /// What is added instead.
    pub bias: Vec<f64>,
}

/// What the networks of torchvision are trained with, for red, green and blue.
const IMAGENET: ([f64; 3], [f64; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// Words that may stand in a text, beside layouts.
const WORDS: [&str; 5] = ["imagenet", "scale", "mean", "std", "bias"];

impl Image {
    /// Reads `[NAME=]LAYOUT[,imagenet][,scale=…][,mean=…][,std=…][,bias=…]`, or a name alone.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, rest) = match Self::split(text) {
            Some((name, rest)) => (Some(name), rest),
            None => (None, text),
        };
        if name == Some("") || text.is_empty() {
            return Err("the name of an input is missing".to_owned());
        }
        let empty = vec![];
        let mut image = Self {
            name: name.map(str::to_owned),
            layout: None,
            scale: empty.clone(),
            mean: empty.clone(),
            std: empty.clone(),
            bias: empty,
        };
        let mut imagenet = false;
        for word in rest.split(',').filter(|_| !rest.is_empty()) {
            imagenet |= word == "imagenet";
            image.word(word)?;
        }
        if imagenet {
            image.imagenet()?;
        }
        image.check()?;
        Ok(image)
    }

    /// The name of the input that a text is about, and what it says of it; `None` where it has no name.
    pub fn split(text: &str) -> Option<(&str, &str)> {
        let first = text.split(',').next().unwrap_or_default();
        if Layout::of(first).is_some() || first == "imagenet" {
            return None;
        }
        // Names may hold `=`: the first one before a word of ours ends the name.
        let ours = |at: &usize| {
            let word = text[at + 1..].split([',', '=']).next().unwrap_or_default();
            Layout::of(word).is_some() || WORDS.contains(&word)
        };
        let end = text.match_indices('=').map(|(at, _)| at).find(ours).or(text.find('='));
        Some(end.map_or((text, ""), |at| (&text[..at], &text[at + 1..])))
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        if word == "imagenet" {
            return Ok(());
        }
        if let Some(layout) = Layout::of(word) {
            return match self.layout.replace(layout) {
                Some(_) => Err("two layouts are given".to_owned()),
                None => Ok(()),
            };
        }
        let Some((key, value)) = word.split_once('=') else {
            let all = LAYOUTS.iter().map(|(n, _)| *n).chain(WORDS);
            let near = nearest(word, all).map_or_else(String::new, |n| format!("; did you mean `{n}`?"));
            return Err(format!("`{word}` is no layout, wanted `rgb`, `bgr`, `gray` or `gray16`{near}"));
        };
        let numbers = match key {
            "scale" => &mut self.scale,
            "mean" => &mut self.mean,
            "std" => &mut self.std,
            "bias" => &mut self.bias,
            _ => {
                let near = nearest(key, WORDS).map_or_else(String::new, |n| format!("; did you mean `{n}`?"));
                return Err(format!("`{key}` is none of `scale`, `mean`, `std` and `bias`{near}"));
            }
        };
        if !numbers.is_empty() {
            return Err(format!("`{key}` is given twice"));
        }
        *numbers = value.split(':').map(number).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn imagenet(&mut self) -> Result<(), String> {
        if [&self.scale, &self.mean, &self.std, &self.bias].iter().any(|n| !n.is_empty()) {
            return Err("`imagenet` stands for `scale`, `mean` and `std`, and does not go with them".to_owned());
        }
        if self.layout.is_some_and(|l| l.channels() == 1) {
            return Err("`imagenet` is for three channels".to_owned());
        }
        let order = |of: [f64; 3]| {
            if self.layout == Some(Layout::Bgr) { of.into_iter().rev().collect() } else { of.to_vec() }
        };
        (self.mean, self.std) = (order(IMAGENET.0), order(IMAGENET.1));
        self.scale = vec![1.0 / 255.0];
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let has_others = !self.mean.is_empty() || !self.std.is_empty();
        if has_others && !self.bias.is_empty() {
            return Err("`bias` stands for `mean` and `std`, and does not go with them".to_owned());
        }
        if self.std.contains(&0.0) {
            return Err("`std` is what pixels are divided by, and must not be 0".to_owned());
        }
        if self.scale.contains(&0.0) {
            return Err("with a `scale` of 0 every image is the same".to_owned());
        }
        for n in [&self.scale, &self.mean, &self.std, &self.bias].into_iter().filter(|n| n.len() > 1) {
            if let Some(layout) = self.layout.filter(|l| l.channels() != n.len()) {
                return Err(format!("{} numbers for {} of {}", n.len(), channels(layout.channels()), layout.name()));
            }
        }
        Ok(())
    }

    /// The factor and the term of each of `channels`: the model gets `pixel * factor + term`.
    pub(super) fn affine(&self, channels: usize) -> (Vec<f64>, Vec<f64>) {
        let at = |n: &[f64], c: usize, none: f64| if let [one] = n { *one } else { n.get(c).copied().unwrap_or(none) };
        let std = |c| at(&self.std, c, 1.0);
        let factor = (0..channels).map(|c| at(&self.scale, c, 1.0) / std(c)).collect();
        let term = (0..channels).map(|c| at(&self.bias, c, 0.0) - at(&self.mean, c, 0.0) / std(c)).collect();
        (factor, term)
    }
}

pub(super) fn channels(n: usize) -> String {
    if n == 1 { "one channel".to_owned() } else { format!("{n} channels") }
}

/// A decimal number, or a fraction such as `1/255`.
fn number(text: &str) -> Result<f64, String> {
    let one = |t: &str| t.trim().parse::<f64>().ok();
    let value = match text.split_once('/') {
        Some((a, b)) => one(a).zip(one(b)).map(|(a, b)| a / b),
        None => one(text),
    };
    let value = value.filter(|x| x.is_finite());
    let value = value.ok_or_else(|| format!("`{text}` is no number, wanted one such as `0.5` or `1/255`"))?;
    // Quotients of them must be numbers of single precision.
    if value == 0.0 || (1e-12..=1e12).contains(&value.abs()) {
        return Ok(value);
    }
    Err(format!("`{text}` is out of range, wanted 0, or a number of 1e-12 to 1e12"))
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = self.layout.map(|l| l.name().to_owned()).into_iter().collect();
        for (key, numbers) in [("scale", &self.scale), ("mean", &self.mean), ("std", &self.std), ("bias", &self.bias)] {
            if !numbers.is_empty() {
                let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                words.push(format!("{key}={}", numbers.join(":")));
            }
        }
        let words = words.join(",");
        match &self.name {
            Some(name) if words.is_empty() => f.write_str(name),
            Some(name) => write!(f, "{name}={words}"),
            None => f.write_str(&words),
        }
    }
}

impl TryFrom<String> for Image {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Image> for String {
    fn from(image: Image) -> Self {
        image.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_say_what_becomes_of_pixels() {
        for (text, name, (factor, term)) in [
            ("x=rgb,scale=2,mean=1:2:3,std=0.5", Some("x"), ([4.0; 3], [-2.0, -4.0, -6.0])),
            ("a=b=bgr,scale=1/4,bias=-1", Some("a=b"), ([0.25; 3], [-1.0; 3])),
            ("rgb", None, ([1.0; 3], [0.0; 3])),
            ("x", Some("x"), ([1.0; 3], [0.0; 3])),
            ("scale=scale=2", Some("scale"), ([2.0; 3], [0.0; 3])),
            ("x=std=2,mean=1", Some("x"), ([0.5; 3], [-0.5; 3])),
        ] {
            let image = Image::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((image.name.as_deref(), image.affine(3)), (name, (factor.to_vec(), term.to_vec())), "{text}");
            assert_eq!(Image::parse(&image.to_string()), Ok(image), "{text}");
        }
    }

    #[test]
    fn imagenet_minds_the_order_of_channels() {
        let rgb = Image::parse("x=imagenet").expect("a name and a word");
        let bgr = Image::parse("imagenet,bgr").expect("two words");
        assert_eq!((rgb.mean[0], bgr.mean[0], bgr.std[2]), (0.485, 0.406, 0.229));
        for bad in ["x=gray,imagenet", "x=imagenet,scale=1", "x=mean=1,mean=2", "=rgb", "", "x=", "x=rgb,", "x=1/0"] {
            let is_name = bad == "x=";
            assert_eq!(Image::parse(bad).is_ok(), is_name, "{bad}");
        }
    }
}
