//! Mul: `a * b` with broadcasting. Opsets 7, 13, 14. Integers wrap.
//!
//! On codes, rounded to the nearest, ties to even, and saturated:
//! `rne((a - za) * (b - zb) * (sa * sb / sc)) + zc`.

use daq_kernels::BinaryF32;

use super::*;

/// ONNX Mul.
#[derive(Clone, Debug, PartialEq)]
pub struct Mul;

impl Operator for Mul {
    const NAME: &'static str = "Mul";
    const INPUTS: usize = 2;

    fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
        Ok(Mul)
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        binary::infer_two(inputs, unary::NUMBERS)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let Some([a, b, c]) = binary::quants(inputs, outputs) else {
            return binary::fold_numbers(inputs, outputs, |a, b| a * b, i64::wrapping_mul);
        };
        let [za, zb, zc] = [a, b, c].map(|quant| quant.zero_point[0]);
        let multiplier = a.scale[0] * b.scale[0] / c.scale[0];
        let (lowest, highest) = binary::code_range(outputs[0].dtype);
        let (low, high) = ((lowest - zc) as f32, (highest - zc) as f32);
        binary::map_codes(inputs, outputs, |a, b| {
            let product = ((a - za) * (b - zb)) as f32 * multiplier;
            product.clamp(low, high).round_ties_even() as i32 + zc
        });
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }

    fn quantization(&self) -> Quantization {
        Quantization::Integer
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        elementwise::binary_f32(BinaryF32::Mul, compile).or_else(|| elementwise::mul_u8(compile))
    }
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats_and_integers() {
        let y = run_f32(&Mul.into(), &[(&[2, 1], &[1., -2.]), (&[2], &[0.5, f32::INFINITY])]);
        assert_eq!(y.data::<f32>(), [0.5, f32::INFINITY, -1., f32::NEG_INFINITY]);
        assert_eq!(run_i64(&Mul.into(), &[&[5, i64::MAX], &[-7, 2]]), [-35, -2]);
        assert_eq!(run_i32(&Mul.into(), &[&[5, i32::MAX], &[-7, 2]]), [-35, -2]);
    }

    #[test]
    fn codes_follow_qlinear_mul() {
        // (a-10)(b-20)/2 + 3: 0.5 -> 0, 1.5 -> 2, -2.5 -> -2, 100, and saturation both ways.
        let a = (&[6usize][..], &[11u8, 13, 15, 0, 255, 255][..], 0.5, 10);
        let b = (&[6usize][..], &[21u8, 21, 19, 0, 255, 0][..], 0.25, 20);
        assert_eq!(run_u8(&Mul.into(), &[a, b], 0.25, 3), [3, 5, 1, 103, 255, 0]);
        // A channel vector [21, 19] over two pixels.
        let x = (&[1usize, 2, 2][..], &[11u8, 13, 15, 20][..], 0.5, 10);
        let v = (&[1usize, 2][..], &[21u8, 19][..], 0.25, 20);
        assert_eq!(run_u8(&Mul.into(), &[x, v], 0.25, 3), [3, 1, 5, 0]);
    }
}
