//! Concat: inputs one after the other along `axis`. Opsets 1, 4, 11 (negative axis), 13.
//!
//! Codes of another scale than the output's become `rne(f32(q - za) * (sa / sc)) + zc`, clamped.

use daq_kernels::{Pool, lookup_u8};

use super::moves::{copy_row, rows_per_task, sized};
use super::*;
use crate::quant::QuantParams;

/// ONNX Concat.
#[derive(Clone, Debug, PartialEq)]
pub struct Concat {
    /// The axis; may count from the end.
    pub axis: i64,
}

/// For each of the 256 codes of an input the output's code; `None` where nothing changes.
fn table(dtype: DType, x: Option<&QuantParams>, y: Option<&QuantParams>) -> Option<[u8; 256]> {
    let (x, y) = (x?, y?);
    let (low, high) = if dtype == DType::I8 { (-128, 127) } else { (0, 255) };
    if x == y || !dtype.is_code() {
        return None;
    }
    let (za, zc) = (x.zero_point[0], y.zero_point[0]);
    let multiplier = x.scale[0] / y.scale[0];
    let code = |byte: u8| {
        let q = if dtype == DType::I8 { (byte as i8).into() } else { i32::from(byte) };
        let real = (q - za) as f32 * multiplier;
        let rounded = real.clamp((low - zc) as f32, (high - zc) as f32).round_ties_even();
        (rounded as i32 + zc) as u8
    };
    Some(std::array::from_fn(|byte| code(byte as u8)))
}

/// Everything that running needs: row length in bytes and the table of each input.
struct Rows {
    inputs: Vec<(usize, Option<[u8; 256]>)>,
}

/// Codes that go through a table before they are put where they belong.
const BLOCK: usize = 4096;

impl Rows {
    fn run(&self, inputs: &[Option<TensorView>], y: &mut TensorViewMut, pool: Option<&Pool>) {
        let row: usize = self.inputs.iter().map(|(len, _)| len).sum();
        if y.bytes.is_empty() {
            return;
        }
        let rows = y.bytes.len() / row;
        let per_task = pool.map_or(rows, |pool| rows_per_task(pool, rows, row));
        let fill = |task: usize, chunk: &mut [u8]| {
            let mut offset = 0;
            for ((len, table), x) in self.inputs.iter().zip(inputs.iter().flatten()) {
                let part = offset..offset + len;
                offset += len;
                if *len == 0 {
                    continue;
                }
                let x = &x.bytes[task * per_task * len..][..chunk.len() / row * len];
                let rows = chunk.chunks_exact_mut(row).map(|y| &mut y[part.clone()]);
                match table {
                    None => rows.zip(x.chunks_exact(*len)).for_each(|(y, x)| copy_row(x, y)),
                    Some(t) if *len > BLOCK => rows
                        .zip(x.chunks_exact(*len))
                        .for_each(|(y, x)| lookup_u8(t, x, y)),
                    Some(t) => {
                        // Many short rows at once.
                        let (mut block, mut rows) = ([0; BLOCK], rows);
                        for x in x.chunks(BLOCK / len * len) {
                            lookup_u8(t, x, &mut block[..x.len()]);
                            let rows = rows.by_ref().take(x.len() / len);
                            rows.zip(block.chunks_exact(*len)).for_each(|(y, x)| copy_row(x, y));
                        }
                    }
                }
            }
        };
        match pool {
            Some(pool) => pool.for_each_chunk(y.bytes, per_task * row, fill),
            None => fill(0, y.bytes),
        }
    }
}

impl Concat {
    fn rows<'a>(
        &self,
        inputs: impl Iterator<Item = (DType, &'a [usize], Option<&'a QuantParams>)>,
        quant: Option<&QuantParams>,
    ) -> Rows {
        let row = |(dtype, shape, x): (DType, &[usize], Option<&QuantParams>)| {
            let axis = normalize_axis(self.axis, shape.len()).expect("checked by infer");
            (shape[axis..].iter().product::<usize>() * dtype.size(), table(dtype, x, quant))
        };
        Rows { inputs: inputs.map(row).collect() }
    }
}

impl Operator for Concat {
    const NAME: &'static str = "Concat";
    const INPUTS: usize = usize::MAX;

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let axis = match attrs.opset {
            ..4 => Some(attrs.int("axis", 1)?),
            _ => attrs.get_int("axis")?,
        };
        Ok(Concat { axis: axis.ok_or_else(|| OpError::attribute("axis", "is missing"))? })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new().with("axis", Attr::Int(self.axis))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let first = required(inputs, 0)?;
        let axis = normalize_axis(self.axis, first.shape.len())?;
        let mut shape = first.shape.clone();
        for index in 1..inputs.len() {
            let x = required(inputs, index)?;
            if x.dtype != first.dtype {
                let allowed = "the type of input 0";
                return Err(OpError::Type { index, dtype: x.dtype, allowed });
            }
            let fits = x.shape.len() == shape.len()
                && (0..shape.len()).all(|i| i == axis || x.shape[i] == shape[i]);
            let sum = x.shape.get(axis).and_then(|&n| shape[axis].checked_add(n));
            shape[axis] = sum.filter(|_| fits).ok_or_else(|| {
                shape_error(format!("input {index} differs on another axis than {axis}"), inputs)
            })?;
        }
        sized(first.dtype, shape, inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let views = inputs.iter().flatten().map(|x| (x.dtype, x.shape, x.quant));
        self.rows(views, outputs[0].quant).run(inputs, &mut outputs[0], None);
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }

    fn to_channels_last(&self, rank: usize) -> Self {
        let axis = normalize_axis(self.axis, rank).expect("checked by infer");
        Concat { axis: Layout::ChannelsLast.physical_axis(axis, rank) as i64 }
    }

    fn quantization(&self) -> Quantization {
        Quantization::Integer
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        let operands = compile.inputs.iter().flatten().map(|x| (x.dtype, x.shape, x.quant));
        let rows = self.rows(operands, compile.outputs.first()?.quant);
        compile.clamp.is_none().then(|| Box::new(rows) as _)
    }
}

impl Kernel for Rows {
    fn name(&self) -> String {
        "concat".into()
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut], pool: &Pool) {
        self.run(inputs, &mut outputs[0], Some(pool));
    }
}

#[cfg(test)]
mod tests {
    use super::eval::{evaluate, evaluate_plain};
    use super::*;

    #[test]
    fn rows_follow_one_another() {
        let a = Tensor::from_slice(&[2, 2], &[1f32, 2., 3., 4.]);
        let b = Tensor::from_slice(&[2, 1], &[5f32, 6.]);
        let none = Tensor::zeros(DType::F32, &[2, 0]);
        for (axis, inputs, shape, data) in [
            (1, vec![&a, &b], [2, 3], vec![1., 2., 5., 3., 4., 6.]),
            (-1, vec![&b, &none, &a], [2, 3], vec![5., 1., 2., 6., 3., 4.]),
            (0, vec![&a, &a], [4, 2], vec![1., 2., 3., 4., 1., 2., 3., 4.]),
            (-2, vec![&b], [2, 1], vec![5., 6.]),
        ] {
            let op = Concat::from_attrs(&Attrs::new().with("axis", Attr::Int(axis))).unwrap();
            let inputs: Vec<_> = inputs.into_iter().map(Some).collect();
            let y = evaluate_plain(&op.into(), &inputs).unwrap();
            assert_eq!((y[0].shape(), y[0].data::<f32>()), (&shape[..], &data[..]));
        }
        assert_eq!(Concat { axis: -3 }.to_channels_last(4), Concat { axis: 3 });
        assert!(Concat::from_attrs(&Attrs::new()).is_err());
    }

    #[test]
    fn codes_take_the_scale_of_the_output() {
        let (a, b) = (Tensor::from_slice(&[3], &[0u8, 101, 255]), Tensor::from_slice(&[1], &[7u8]));
        let (aq, bq) = (QuantParams::per_tensor(0.5, 100), QuantParams::per_tensor(1.0, 10));
        let op = Concat { axis: 0 }.into();
        let y = evaluate(&op, &[Some((&a, Some(&aq))), Some((&b, Some(&bq)))], &[(DType::U8, bq.clone())]);
        // -50 -> -40 (below the codes) -> 0; 0.5 -> 0 (to even) + 10; 77.5 -> 78 + 10; unchanged.
        assert_eq!(y.unwrap()[0].data::<u8>(), [0, 10, 88, 7]);
        let s = Tensor::from_slice(&[2], &[-128i8, 3]);
        let (sq, out) = (QuantParams::per_tensor(0.5, 1), QuantParams::per_tensor(1.0, -2));
        let y = evaluate(&op, &[Some((&s, Some(&sq)))], &[(DType::I8, out)]).unwrap();
        // -64.5 -> -64 (to even) - 2; 1 - 2.
        assert_eq!(y[0].data::<i8>(), [-66, -1]);
    }

    #[test]
    fn misfits_are_errors() {
        let spec = |dtype, shape: &[usize]| Some(Spec::new(dtype, shape));
        let a = spec(DType::F32, &[2, 2]);
        for other in [
            spec(DType::F32, &[3, 3]),
            spec(DType::F32, &[2]),
            spec(DType::U8, &[2, 2]),
            spec(DType::F32, &[2, usize::MAX]),
            None,
        ] {
            assert!(Concat { axis: 1 }.infer(&[a.clone(), other.clone()]).is_err(), "{other:?}");
        }
        assert!(Concat { axis: 2 }.infer(&[a]).is_err());
        assert!(Concat { axis: 0 }.infer(&[]).is_err());
    }
}
