//! The vector instructions of the processor at hand.

pub use pulp::{Simd, WithSimd};

/// Runs `op` compiled for the widest vector instructions of this processor, which it may use by name.
///
/// Results are the same on every processor, as long as `op` fuses no product with a sum and adds no lanes up.
#[inline]
pub fn vectorized<Op: WithSimd>(op: Op) -> Op::Output {
    pulp::Arch::new().dispatch(op)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Squares<'a>(&'a mut [f32]);

    impl WithSimd for Squares<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let (wide, rest) = S::as_mut_simd_f32s(self.0);
            wide.iter_mut().for_each(|x| *x = simd.mul_f32s(*x, *x));
            rest.iter_mut().for_each(|x| *x *= *x);
        }
    }

    #[test]
    fn gives_what_plain_code_gives() {
        let x: Vec<f32> = (0..1000).map(|i| (i as f32).sin()).collect();
        let mut y = x.clone();
        vectorized(Squares(&mut y));
        assert_eq!(y, x.iter().map(|x| x * x).collect::<Vec<_>>());
    }
}
