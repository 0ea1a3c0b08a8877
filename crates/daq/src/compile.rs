//! What a plan tells an operator so that it can choose a kernel, and what it gets back.

use daq_kernels::{ConvU8, Isa, Pool};

use crate::error::Result;
use crate::quant::QuantParams;
use crate::tensor::{DType, Tensor, TensorView, TensorViewMut};

/// One input or output of a node, as the plan lays it out.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The element type.
    pub dtype: DType,
    /// The physical shape.
    pub shape: &'a [usize],
    /// How codes stand for real numbers.
    pub quant: Option<&'a QuantParams>,
    /// The elements, where they are constant.
    pub data: Option<&'a Tensor>,
}

impl<'a> Operand<'a> {
    /// Whether it holds 8-bit codes (`u8`) with a known scale.
    pub fn is_quantized(&self) -> bool {
        self.dtype == DType::U8 && self.quant.is_some()
    }

    /// How codes stand for real numbers, where it holds codes: a float output may have a scale too,
    /// for callers that take codes.
    pub fn code_quant(&self) -> Option<&'a QuantParams> {
        self.quant.filter(|_| self.dtype.is_code())
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A node about to be compiled.
#[derive(Clone, Copy, Debug)]
pub struct Compile<'a> {
    /// The instruction set that kernels may use.
    pub isa: Isa,
    /// The inputs by position.
    pub inputs: &'a [Option<Operand<'a>>],
    /// The outputs by position.
    pub outputs: &'a [Operand<'a>],
    /// Bounds to clamp the float output to. An operator that cannot do so in the same pass
    /// returns no kernel; the plan then asks again without.
    pub clamp: Option<(f32, f32)>,
}

impl<'a> Compile<'a> {
    /// Input `index`, where it is given.
    pub fn input(&self, index: usize) -> Option<Operand<'a>> {
        self.inputs.get(index).copied().flatten()
    }

    /// The bounds of [`clamp`](Self::clamp), infinite where there is none.
    pub fn bounds(&self) -> (f32, f32) {
        self.clamp.unwrap_or((f32::NEG_INFINITY, f32::INFINITY))
    }

    /// The elements of input `index`, where it is given and constant.
    pub fn constant(&self, index: usize) -> Option<&'a Tensor> {
        self.input(index)?.data
    }
}

/// A compiled node: what a session runs. Shared by sessions, so it keeps no state of a run.
pub trait Kernel: Send + Sync {
    /// The kernel's name, with tile and instruction set where it has one.
    fn name(&self) -> String;

    /// The product with constant weights that this is, where it is one on codes and nothing else:
    /// plans append to it what follows.
    fn product(&self) -> Option<&ConvU8> {
        None
    }

    /// Whether its output may lie where its last input does, of which it then gets no view.
    fn writes_over_last(&self) -> bool {
        false
    }

    /// Computes the outputs. Views are as the plan's [`Operand`]s said.
    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut], pool: &Pool);

    /// Computes the outputs where that can fail, as on a device that is not ours.
    fn try_run(
        &self,
        inputs: &[Option<TensorView>],
        outputs: &mut [TensorViewMut],
        pool: &Pool,
    ) -> Result<()> {
        self.run(inputs, outputs, pool);
        Ok(())
    }
}
