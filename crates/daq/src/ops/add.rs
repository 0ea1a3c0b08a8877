//! Add: `a + b` with broadcasting. Opsets 7, 13, 14. Integers wrap.
//!
//! On codes, with `r = scale / output scale` of each input, rounded once to the nearest, ties to
//! even, and saturated: `fma(a, ra, fma(b, rb, zc - fma(ra, za, rb * zb)))`.

use daq_kernels::BinaryF32;

use super::*;

/// ONNX Add.
#[derive(Clone, Debug, PartialEq)]
pub struct Add;

impl Operator for Add {
    const NAME: &'static str = "Add";
    const INPUTS: usize = 2;

    fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
        Ok(Add)
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        binary::infer_two(inputs, unary::NUMBERS)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let Some([a, b, c]) = binary::quants(inputs, outputs) else {
            return binary::fold_numbers(inputs, outputs, |a, b| a + b, i64::wrapping_add);
        };
        let zero_points = [a, b, c].map(|quant| quant.zero_point[0] as f32);
        let (ra, rb) = (a.scale[0] / c.scale[0], b.scale[0] / c.scale[0]);
        let offset = zero_points[2] - ra.mul_add(zero_points[0], rb * zero_points[1]);
        let (lowest, highest) = binary::code_range(outputs[0].dtype);
        binary::map_codes(inputs, outputs, |a, b| {
            let sum = (a as f32).mul_add(ra, (b as f32).mul_add(rb, offset));
            sum.clamp(lowest as f32, highest as f32).round_ties_even() as i32
        });
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }

    fn quantization(&self) -> Quantization {
        Quantization::Integer
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        elementwise::binary_f32(BinaryF32::Add, compile).or_else(|| elementwise::add_u8(compile))
    }
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;
    use crate::QuantParams;

    #[test]
    fn floats_and_integers() {
        let y = run_f32(&Add.into(), &[(&[2, 1], &[1., -2.]), (&[2], &[0.5, f32::INFINITY])]);
        assert_eq!(y.data::<f32>(), [1.5, f32::INFINITY, -1.5, f32::INFINITY]);
        assert_eq!(run_i64(&Add.into(), &[&[5, i64::MAX], &[-7, 1]]), [-2, i64::MIN]);
        assert_eq!(run_i32(&Add.into(), &[&[5, i32::MAX], &[-7, 1]]), [-2, i32::MIN]);
    }

    #[test]
    fn codes_follow_qlinear_add() {
        // (a-10)/2 + (b-20)/4 + 3: 3, 3.5 (a tie, to even 4), 4.5 (4), -7 (0), 184.25, 2.75.
        let a = (&[6usize][..], &[10u8, 11, 11, 0, 255, 10][..], 0.5, 10);
        let b = (&[6usize][..], &[20u8, 20, 24, 0, 255, 19][..], 0.25, 20);
        assert_eq!(run_u8(&Add.into(), &[a, b], 1.0, 3), [3, 4, 4, 0, 184, 3]);
        let column = (&[2usize, 1][..], &[20u8, 28][..], 0.25, 20);
        let row = (&[3usize][..], &[10u8, 12, 0][..], 0.5, 10);
        assert_eq!(run_u8(&Add.into(), &[column, row], 1.0, 3), [3, 4, 0, 5, 6, 0]);
    }

    #[test]
    fn signed_codes_and_floats_mix() {
        let a = Tensor::from_slice(&[3], &[-128i8, 0, 127]);
        let b = Tensor::from_slice(&[1], &[2i8]);
        let (aq, bq) = (QuantParams::per_tensor(1.0, 0), QuantParams::per_tensor(1.0, 3));
        let outputs = [(DType::I8, QuantParams::per_tensor(1.0, -1))];
        let y = eval::evaluate(&Add.into(), &[Some((&a, Some(&aq))), Some((&b, Some(&bq)))], &outputs);
        assert_eq!(y.unwrap()[0].data::<i8>(), [-128, -2, 125]);
        // Codes of one scale per channel go through float: 2 * 1 + 4, 2 * 10 + 4.
        let per_channel = QuantParams { scale: vec![1., 10.], zero_point: vec![0, 0], axis: 0 };
        let a = Tensor::from_slice(&[2, 1], &[2i8, 2]);
        let b = Tensor::from_slice(&[1], &[7i8]);
        let inputs = [Some((&a, Some(&per_channel))), Some((&b, Some(&bq)))];
        let y = eval::evaluate(&Add.into(), &inputs, &outputs).unwrap();
        assert_eq!(y[0].data::<i8>(), [5, 23]);
        let y = eval::evaluate(&Add.into(), &inputs, &[(DType::F32, bq.clone())]).unwrap();
        assert_eq!(y[0].data::<f32>(), [6., 24.]);
    }
}
