//! Samples for a model: a dataset seen through the preprocessing.

use daq::{DType, Graph, Layout, Tensor};

use crate::calibrate::{Samples, numbers};
use crate::dataset::{Dataset, DatasetError, InputSpec};
use crate::npy::{Array, ArrayData};
use crate::preprocess::Preprocess;

/// The metadata key under which a model keeps its preprocessing, as JSON.
pub const PREPROCESS: &str = "daq.preprocess";

/// A dataset prepared for a model's inputs.
pub struct PreparedDataset {
    /// The files.
    pub dataset: Dataset,
    /// How pictures become tensors.
    pub preprocess: Preprocess,
}

/// What a dataset has to fill: the inputs of a graph in the caller's layout.
pub fn input_specs(graph: &Graph) -> Vec<InputSpec> {
    let spec = |&id: &usize| {
        let value = &graph.values[id];
        let shape = value.layout.physical(&value.shape).into_iter().map(Some).collect();
        InputSpec { name: value.name.clone(), shape }
    };
    graph.inputs.iter().map(spec).collect()
}

impl PreparedDataset {
    /// Opens a folder or file of samples for a graph, and checks that the preprocessing fits.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub fn open(
        path: &std::path::Path,
        graph: &Graph,
        preprocess: Preprocess,
    ) -> Result<Self, DatasetError> {
        let dataset = Dataset::open(path, &input_specs(graph))?;
        dataset.target(&preprocess)?;
        Ok(PreparedDataset { dataset, preprocess })
    }
}

impl Samples for PreparedDataset {
    fn len(&self) -> usize {
        self.dataset.len()
    }

    fn name(&self, index: usize) -> String {
        self.dataset.name(index)
    }

    fn load(&self, index: usize) -> Result<Vec<(String, Tensor)>, String> {
        let sample = self.dataset.load(index, &self.preprocess).map_err(|e| e.to_string())?;
        let sample = sample.into_iter().map(|(name, array)| (name, to_tensor(&array))).collect();
        numbers(sample)
    }
}

/// An array as a tensor.
pub fn to_tensor(array: &Array) -> Tensor {
    let shape = &array.shape;
    match &array.data {
        ArrayData::F32(v) => Tensor::from_slice(shape, v),
        ArrayData::U8(v) => Tensor::from_slice(shape, v),
        ArrayData::I8(v) => Tensor::from_slice(shape, v),
        ArrayData::I32(v) => Tensor::from_slice(shape, v),
        ArrayData::I64(v) => Tensor::from_slice(shape, v),
        ArrayData::Bool(v) => {
            let bytes: Vec<u8> = v.iter().map(|&b| u8::from(b)).collect();
            Tensor::from_bytes(DType::Bool, shape, &bytes)
        }
    }
}

/// A tensor as an array.
pub fn to_array(tensor: &Tensor) -> Array {
    let data = match tensor.dtype() {
        DType::F32 => ArrayData::F32(tensor.data().to_vec()),
        DType::U8 => ArrayData::U8(tensor.data().to_vec()),
        DType::I8 => ArrayData::I8(tensor.data().to_vec()),
        DType::I32 => ArrayData::I32(tensor.data().to_vec()),
        DType::I64 => ArrayData::I64(tensor.data().to_vec()),
        _ => ArrayData::Bool(tensor.bytes().iter().map(|&b| b != 0).collect()),
    };
    Array::new(tensor.shape().to_vec(), data)
}

/// The preprocessing that a model carries, where it carries one.
///
/// # Errors
/// A description that cannot be read.
pub fn preprocess_of(
    graph: &Graph,
) -> Result<Option<Preprocess>, crate::preprocess::SettingsError> {
    graph.metadata.get(PREPROCESS).map(|json| Preprocess::from_json(json)).transpose()
}

/// The layout that a picture tensor of this graph has: that of its first input.
pub fn input_layout(graph: &Graph) -> Layout {
    graph.inputs.first().map_or(Layout::Plain, |&id| graph.values[id].layout)
}
