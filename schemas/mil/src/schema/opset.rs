//! Op sets: the versions of MIL.

use std::fmt;

/// A version of MIL, by the operating system that introduced it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Opset {
    /// iOS 15, macOS 12.
    Ios15,
    /// iOS 16, macOS 13.
    Ios16,
    /// iOS 17, macOS 14.
    #[default]
    Ios17,
    /// iOS 18, macOS 15.
    Ios18,
    /// iOS 26, macOS 26.
    Ios26,
}

impl Opset {
    /// All, oldest first.
    pub const ALL: [Self; 5] = [Self::Ios15, Self::Ios16, Self::Ios17, Self::Ios18, Self::Ios26];

    /// The spelling used in text and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ios15 => "ios15",
            Self::Ios16 => "ios16",
            Self::Ios17 => "ios17",
            Self::Ios18 => "ios18",
            Self::Ios26 => "ios26",
        }
    }

    /// The op set spelled `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|o| o.name() == name)
    }
}

impl fmt::Display for Opset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
