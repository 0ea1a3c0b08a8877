//! The fused multiply-add for instruction sets that have none: without it each would be a call of
//! the system's function, number by number.

/// `a * b + c`, rounded once: what `f32::mul_add` gives, with another NaN perhaps.
///
/// The product of two floats is exact in 53 bits. Their sum with `c`, rounded to odd (the last bit
/// stands for all that did not fit), rounds to float as the exact sum does: Boldo and Melquiond,
/// "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008.
#[inline(always)]
pub(crate) fn fused(a: f32, b: f32, c: f32) -> f32 {
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    // What the sum lost, exactly (Knuth's TwoSum); NaN beyond the finite.
    let back = sum - product;
    let lost = (product - (sum - back)) + (c - back);
    let bits = sum.to_bits();
    let inexact = (lost < 0.0) | (lost > 0.0);
    // To the odd neighbour on the side of the exact sum.
    let outward = (lost > 0.0) == (sum > 0.0);
    let step = if outward { 1 } else { u64::MAX };
    let step = if inexact & (bits & 1 == 0) { step } else { 0 };
    f64::from_bits(bits.wrapping_add(step)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::{Random, same_bits};

    #[test]
    fn rounds_once() {
        // 1 + 2^-24 + 2^-60: above the tie that rounding to 53 bits first would leave.
        let half = 2f32.powi(-24);
        assert_eq!(fused(half, 1.0, 1.0), 1.0);
        assert_eq!(fused(1.0 + 2f32.powi(-23), 1.0, half), 1.0 + 2f32.powi(-22));
        let product = (1.0 + 2f32.powi(-12), 1.0 + 2f32.powi(-12)); // 1 + 2^-11 + 2^-24: a tie
        assert_eq!(fused(product.0, product.1, 0.0), 1.0 + 2f32.powi(-11));
        assert_eq!(
            fused(product.0, product.1, 2f32.powi(-90)),
            1.0 + 2f32.powi(-11) + 2f32.powi(-23)
        );
        assert_eq!(fused(product.0, product.1, -2f32.powi(-90)), 1.0 + 2f32.powi(-11));
    }

    #[test]
    fn equals_the_fused_multiply_add() {
        let edges = [0.0, -0.0, 1.0, -1.0, f32::MAX, f32::MIN_POSITIVE, 1e-45, f32::INFINITY];
        let edges = edges.iter().flat_map(|&x| [x, -x]).chain([f32::NAN]).collect::<Vec<_>>();
        let check = |a: f32, b: f32, c: f32| {
            let (got, want) = (fused(a, b, c), a.mul_add(b, c));
            assert!(same_bits(&[got], &[want]), "{a:e} * {b:e} + {c:e}: {got:e}, not {want:e}");
        };
        for &a in &edges {
            for &b in &edges {
                edges.iter().for_each(|&c| check(a, b, c));
            }
        }
        let mut random = Random::new(5);
        for _ in 0..200_000 {
            let mut bits = || ((random.below(1 << 16) << 16) | random.below(1 << 16)) as u32;
            let (a, b) = (f32::from_bits(bits()), f32::from_bits(bits()));
            check(a, b, f32::from_bits(bits()));
            // About as large as the product, or where the product's last bits decide.
            let scale = 2f32.powi((bits() % 120) as i32 - 60);
            check(a, b, -a * b * scale);
            // Few bits each, so that many products are ties.
            let few = |bits: u32| f32::from_bits(0x3f80_0000 | (bits & 0x7f_f000));
            check(few(bits()), few(bits()), few(bits()) * scale);
        }
    }
}
