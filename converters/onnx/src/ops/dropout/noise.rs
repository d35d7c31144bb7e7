//! The random numbers that ONNX's reference implementation draws for a seed.
//!
//! Source: Matsumoto and Nishimura, "Mersenne Twister", 1998, in the form MT19937 with doubles of 53 bits.

const SIZE: usize = 624;
const MIDDLE: usize = 397;

/// Numbers in `0..1`.
pub(super) struct Twister {
    state: Vec<u32>,
    at: usize,
}

impl Twister {
    pub(super) fn new(seed: u32) -> Self {
        let mut state = Vec::with_capacity(SIZE);
        let mut last = seed;
        state.push(last);
        for i in 1..SIZE as u32 {
            last = (last ^ (last >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i);
            state.push(last);
        }
        Self { state, at: SIZE }
    }

    fn twist(&mut self) {
        for i in 0..SIZE {
            let joined = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % SIZE] & 0x7fff_ffff);
            let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + MIDDLE) % SIZE] ^ (joined >> 1) ^ odd;
        }
        self.at = 0;
    }

    fn word(&mut self) -> u32 {
        if self.at >= SIZE {
            self.twist();
        }
        let mut y = self.state[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }
}

impl Iterator for Twister {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        let (high, low) = (self.word() >> 5, self.word() >> 6);
        Some((f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_reference() {
        let drawn: Vec<f64> = Twister::new(0).take(3).collect();
        assert_eq!(drawn, [0.548_813_503_927_324_8, 0.715_189_366_372_419_5, 0.602_763_376_071_643_9]);
    }
}
