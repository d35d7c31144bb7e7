//! Streams of sub-byte integers, least significant bit first, as Core ML and ONNX store them.

/// Bytes that `count` elements of `bits` bits each take; `None` on overflow.
pub fn packed_len(count: usize, bits: u32) -> Option<usize> {
    count.checked_mul(bits as usize)?.checked_add(7).map(|n| n / 8)
}

/// Reads `count` unsigned integers of `bits` (1 to 8) bits from `bytes`; missing bits read as zero.
pub fn unpack_bits(bytes: &[u8], bits: u32, count: usize) -> impl Iterator<Item = u8> + '_ {
    let mask = ((1u16 << bits) - 1) as u8;
    (0..count).map(move |i| {
        let at = i * bits as usize;
        let (byte, shift) = (at / 8, at % 8);
        let low = u16::from(bytes.get(byte).copied().unwrap_or(0));
        let high = u16::from(bytes.get(byte + 1).copied().unwrap_or(0));
        (((high << 8 | low) >> shift) as u8) & mask
    })
}

/// Packs the low `bits` (1 to 8) bits of every value.
pub fn pack_bits(values: impl IntoIterator<Item = u8>, bits: u32) -> Vec<u8> {
    let mask = (1u32 << bits) - 1;
    let (mut out, mut held, mut used) = (Vec::new(), 0u32, 0);
    for v in values {
        held |= (u32::from(v) & mask) << used;
        used += bits;
        while used >= 8 {
            out.push(held as u8);
            held >>= 8;
            used -= 8;
        }
    }
    if used > 0 {
        out.push(held as u8);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn three_bit_values_straddle_bytes() {
        let bytes = [0x25, 0xdd];
        assert_eq!(unpack_bits(&bytes, 3, 3).collect::<Vec<_>>(), [5, 4, 4]);
    }

    proptest! {
        #[test]
        fn unpack_undoes_pack(values in prop::collection::vec(0u8.., 0..70), bits in 1u32..=8) {
            let masked: Vec<u8> = values.iter().map(|v| v & ((1u16 << bits) - 1) as u8).collect();
            let packed = pack_bits(values.iter().copied(), bits);
            prop_assert_eq!(packed.len(), packed_len(values.len(), bits).expect("small"));
            prop_assert_eq!(unpack_bits(&packed, bits, values.len()).collect::<Vec<_>>(), masked);
        }
    }
}
