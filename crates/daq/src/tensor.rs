//! Tensors: an element type, a shape and 64-byte aligned bytes, owned or mapped from a file.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::mmap;
use crate::quant::QuantParams;

/// The largest tensor that daq holds, in bytes; a forged shape stops here.
pub const MAX_TENSOR_BYTES: u64 = 1 << 31;

/// The most axes of a tensor.
pub const MAX_RANK: usize = 16;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DType {
    /// 32-bit float.
    F32,
    /// Unsigned byte; with [`QuantParams`] an 8-bit code, 0..255.
    U8,
    /// Signed byte; with [`QuantParams`] an 8-bit code, -128..127.
    I8,
    /// 32-bit integer; with [`QuantParams`] a bias.
    I32,
    /// 64-bit integer: shapes and indices.
    I64,
    /// A byte that is 0 or 1.
    Bool,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::U8 | DType::I8 | DType::Bool => 1,
            DType::F32 | DType::I32 => 4,
            DType::I64 => 8,
        }
    }

    /// Whether it is one of the two 8-bit code types.
    pub fn is_code(self) -> bool {
        matches!(self, DType::U8 | DType::I8)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::U8 => "u8",
            DType::I8 => "i8",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::Bool => "bool",
        })
    }
}

/// A Rust type that tensors hold.
pub trait Element: bytemuck::Pod + PartialOrd + fmt::Debug + Send + Sync {
    /// The element type it stands for.
    const DTYPE: DType;
}

macro_rules! element {
    ($($t:ty => $d:ident),*) => { $(impl Element for $t { const DTYPE: DType = DType::$d; })* };
}
element!(f32 => F32, u8 => U8, i8 => I8, i32 => I32, i64 => I64);

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Block([u8; 64]);

/// A growable run of 64-byte aligned bytes.
#[derive(Clone, Default)]
pub struct AlignedBytes {
    blocks: Vec<Block>,
    len: usize,
}

impl AlignedBytes {
    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        AlignedBytes { blocks: vec![Block([0; 64]); len.div_ceil(64)], len }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.blocks)[..self.len]
    }

    /// The bytes, to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.blocks)[..self.len]
    }
}

enum Storage {
    Owned(AlignedBytes),
    Mapped(memmap2::Mmap),
    /// A mapping of a file from an offset on, and that file: a driver maps it once more.
    #[cfg(feature = "nnapi")]
    File(memmap2::Mmap, std::fs::File, u64),
}

impl Storage {
    fn bytes(&self) -> &[u8] {
        match self {
            Storage::Owned(bytes) => bytes.as_slice(),
            Storage::Mapped(map) => map,
            #[cfg(feature = "nnapi")]
            Storage::File(map, ..) => map,
        }
    }
}

/// Elements with a type and a shape, row-major, shared when cloned.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    storage: Arc<Storage>,
    range: Range<usize>,
}

/// The number of bytes of a tensor, or an error where it is beyond [`MAX_TENSOR_BYTES`] or has
/// more than [`MAX_RANK`] axes. Empty axes count as 1 for the limit, so that products of some of
/// the axes are within it too.
pub fn checked_bytes(what: &str, dtype: DType, shape: &[usize]) -> Result<usize> {
    if shape.len() > MAX_RANK {
        let why = format!("{what} has {} axes, more than {MAX_RANK}", shape.len());
        return Err(Error::Graph(why));
    }
    let bytes = shape
        .iter()
        .try_fold(dtype.size() as u64, |n, &d| n.checked_mul(d.max(1) as u64))
        .unwrap_or(u64::MAX);
    if bytes > MAX_TENSOR_BYTES {
        return Err(Error::TooLarge {
            what: format!("{what} of shape {shape:?}"),
            bytes,
            limit: MAX_TENSOR_BYTES,
        });
    }
    Ok(if shape.contains(&0) { 0 } else { bytes as usize })
}

impl Tensor {
    /// A tensor of zeros. The shape must be within [`MAX_TENSOR_BYTES`].
    pub fn zeros(dtype: DType, shape: &[usize]) -> Tensor {
        let len = shape.iter().product::<usize>() * dtype.size();
        Self::from_aligned(dtype, shape, AlignedBytes::zeroed(len))
    }

    /// A tensor of the given elements.
    ///
    /// # Panics
    /// If `shape` does not hold as many elements as `data`.
    pub fn from_slice<T: Element>(shape: &[usize], data: &[T]) -> Tensor {
        Self::from_bytes(T::DTYPE, shape, bytemuck::cast_slice(data))
    }

    /// A tensor of one element and rank 0.
    pub fn scalar<T: Element>(value: T) -> Tensor {
        Self::from_slice(&[], &[value])
    }

    /// A tensor of little-endian element bytes.
    ///
    /// # Panics
    /// If `bytes` is not as long as the type and shape ask.
    pub fn from_bytes(dtype: DType, shape: &[usize], bytes: &[u8]) -> Tensor {
        let mut owned = AlignedBytes::zeroed(bytes.len());
        owned.as_mut_slice().copy_from_slice(bytes);
        Self::from_aligned(dtype, shape, owned)
    }

    /// A tensor that takes over aligned bytes.
    ///
    /// # Panics
    /// If `bytes` is not as long as the type and shape ask.
    pub fn from_aligned(dtype: DType, shape: &[usize], bytes: AlignedBytes) -> Tensor {
        let len = bytes.len;
        assert_eq!(shape.iter().product::<usize>() * dtype.size(), len, "{dtype} {shape:?}");
        Tensor {
            dtype,
            shape: shape.to_vec(),
            storage: Arc::new(Storage::Owned(bytes)),
            range: 0..len,
        }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The shape; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements' bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.storage.bytes()[self.range.clone()]
    }

    /// The file that the elements are mapped from, where they lie in it, and the mapped part.
    #[cfg(feature = "nnapi")]
    pub(crate) fn file(&self) -> Option<(&std::fs::File, u64, Range<u64>)> {
        match &*self.storage {
            Storage::File(map, file, offset) => {
                let at = offset + self.range.start as u64;
                Some((file, at, *offset..offset + map.len() as u64))
            }
            _ => None,
        }
    }

    /// Gives the memory of the mapped file that this is a part of back to the system, unless it is that of
    /// `last`. Returns the file.
    pub(crate) fn release<'a>(&'a self, last: Option<&'a Self>) -> &'a Self {
        if !last.is_some_and(|last| Arc::ptr_eq(&last.storage, &self.storage)) {
            match &*self.storage {
                Storage::Owned(_) => {}
                Storage::Mapped(map) => mmap::release(map),
                #[cfg(feature = "nnapi")]
                Storage::File(map, ..) => mmap::release(map),
            }
        }
        self
    }

    /// The elements.
    ///
    /// # Panics
    /// If `T` is not the element type.
    pub fn data<T: Element>(&self) -> &[T] {
        self.view().data()
    }

    /// The same elements in another shape of as many.
    ///
    /// # Panics
    /// If the number of elements differs.
    pub fn reshaped(&self, shape: &[usize]) -> Tensor {
        assert_eq!(self.len(), shape.iter().product::<usize>(), "{:?} to {shape:?}", self.shape);
        Tensor { shape: shape.to_vec(), ..self.clone() }
    }

    /// A borrowed view without quantization.
    pub fn view(&self) -> TensorView<'_> {
        TensorView { dtype: self.dtype, shape: &self.shape, quant: None, bytes: self.bytes() }
    }

    /// A borrowed view that is read through `quant`.
    pub fn quantized_view<'a>(&'a self, quant: Option<&'a QuantParams>) -> TensorView<'a> {
        TensorView { quant, ..self.view() }
    }
}

/// A mapped file whose parts serve as tensors, without a copy.
#[derive(Clone)]
pub struct MappedFile(Arc<Storage>);

impl MappedFile {
    /// Wraps a mapping.
    pub fn new(map: memmap2::Mmap) -> Self {
        MappedFile(Arc::new(Storage::Mapped(map)))
    }

    /// Wraps a mapping of a file from an offset on.
    #[cfg(feature = "nnapi")]
    pub(crate) fn of_file(map: memmap2::Mmap, file: std::fs::File, offset: u64) -> Self {
        MappedFile(Arc::new(Storage::File(map, file, offset)))
    }

    /// Takes bytes held in memory; parts of it serve as tensors like those of a mapping.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut owned = AlignedBytes::zeroed(bytes.len());
        owned.as_mut_slice().copy_from_slice(bytes);
        MappedFile(Arc::new(Storage::Owned(owned)))
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    /// The part at `range` as a tensor, or `None` where the range is outside of the file, of
    /// another length than the shape asks, or not aligned to 64 bytes.
    pub fn tensor(&self, dtype: DType, shape: &[usize], range: Range<usize>) -> Option<Tensor> {
        let bytes = checked_bytes("tensor", dtype, shape).ok()?;
        let fits = range.start.is_multiple_of(64)
            && range.start <= range.end
            && range.end <= self.bytes().len()
            && range.len() == bytes;
        fits.then(|| Tensor { dtype, shape: shape.to_vec(), storage: self.0.clone(), range })
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {:?})", self.dtype, self.shape)
    }
}

impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        self.dtype == other.dtype && self.shape == other.shape && self.bytes() == other.bytes()
    }
}

/// Borrowed elements with a type, a shape and, for codes, their quantization.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// The element type.
    pub dtype: DType,
    /// The shape; empty for a scalar.
    pub shape: &'a [usize],
    /// How codes stand for real numbers; `None` for plain numbers.
    pub quant: Option<&'a QuantParams>,
    /// The elements' bytes, aligned for the type.
    pub bytes: &'a [u8],
}

impl<'a> TensorView<'a> {
    /// The elements. `Bool` elements are read as `u8`.
    ///
    /// # Panics
    /// If `T` is not the element type.
    pub fn data<T: Element>(&self) -> &'a [T] {
        let bool_as_byte = self.dtype == DType::Bool && T::DTYPE == DType::U8;
        assert!(bool_as_byte || T::DTYPE == self.dtype, "{} read as {}", self.dtype, T::DTYPE);
        bytemuck::cast_slice(self.bytes)
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An owned copy of the elements (the quantization is not kept).
    pub fn to_tensor(&self) -> Tensor {
        Tensor::from_bytes(self.dtype, self.shape, self.bytes)
    }
}

/// Elements to be written, with a type, a shape and, for codes, their quantization.
#[derive(Debug)]
pub struct TensorViewMut<'a> {
    /// The element type.
    pub dtype: DType,
    /// The shape; empty for a scalar.
    pub shape: &'a [usize],
    /// How codes stand for real numbers; `None` for plain numbers.
    pub quant: Option<&'a QuantParams>,
    /// The elements' bytes, aligned for the type.
    pub bytes: &'a mut [u8],
}

impl<'a> TensorViewMut<'a> {
    /// How codes stand for real numbers, where it holds codes.
    pub fn code_quant(&self) -> Option<&'a QuantParams> {
        self.quant.filter(|_| self.dtype.is_code())
    }

    /// The elements, to write. `Bool` elements are written as `u8`.
    ///
    /// # Panics
    /// If `T` is not the element type.
    pub fn data_mut<T: Element>(&mut self) -> &mut [T] {
        let bool_as_byte = self.dtype == DType::Bool && T::DTYPE == DType::U8;
        assert!(bool_as_byte || T::DTYPE == self.dtype, "{} written as {}", self.dtype, T::DTYPE);
        bytemuck::cast_slice_mut(self.bytes)
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

/// Runs a block with `$t` standing for the Rust type of a [`DType`]: for operators that move
/// elements whatever they are. `Bool` is moved as `u8`.
#[macro_export]
macro_rules! for_any_type {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $t = f32;
                $body
            }
            $crate::DType::U8 | $crate::DType::Bool => {
                type $t = u8;
                $body
            }
            $crate::DType::I8 => {
                type $t = i8;
                $body
            }
            $crate::DType::I32 => {
                type $t = i32;
                $body
            }
            $crate::DType::I64 => {
                type $t = i64;
                $body
            }
        }
    };
}
