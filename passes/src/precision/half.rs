//! The numbers of half precision.

/// The greatest.
pub(super) const MOST: f64 = 65_504.0;
/// The least above zero of which it has all digits: 2^-14.
pub(super) const NORMAL: f64 = 6.103_515_625e-5;
/// The least above zero: 2^-24.
pub(super) const LEAST: f64 = 5.960_464_477_539_063e-8;
