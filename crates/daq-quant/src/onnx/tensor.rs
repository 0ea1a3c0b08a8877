//! Constants: ONNX's many ways to store a tensor, as one.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use daq::tensor::{AlignedBytes, checked_bytes};
use daq::{DType, Tensor};

use super::proto::TensorProto;
use super::proto::tensor_proto::{DataLocation, DataType};

/// A type name as ONNX writes it, for messages.
pub(super) fn type_name(data_type: i32) -> String {
    match DataType::try_from(data_type) {
        Ok(known) => known.as_str_name().to_string(),
        Err(_) => format!("number {data_type}"),
    }
}

/// The element type that holds an ONNX type as it is.
pub(super) fn dtype(data_type: i32) -> Option<DType> {
    Some(match DataType::try_from(data_type).ok()? {
        DataType::Float => DType::F32,
        DataType::Uint8 => DType::U8,
        DataType::Int8 => DType::I8,
        DataType::Int32 => DType::I32,
        DataType::Int64 => DType::I64,
        DataType::Bool => DType::Bool,
        _ => return None,
    })
}

/// The element type that holds an ONNX type: `f32` for wider and narrower floats.
pub(super) fn held(data_type: i32) -> Option<DType> {
    Some(match Stored::of(data_type)? {
        Stored::As(dtype) => dtype,
        Stored::F64 | Stored::F16 | Stored::BF16 => DType::F32,
    })
}

/// The ONNX type of an element type.
pub(super) fn data_type(dtype: DType) -> Option<DataType> {
    Some(match dtype {
        DType::F32 => DataType::Float,
        DType::U8 => DataType::Uint8,
        DType::I8 => DataType::Int8,
        DType::I32 => DataType::Int32,
        DType::I64 => DataType::Int64,
        DType::Bool => DataType::Bool,
        _ => return None,
    })
}

/// How the file stores the elements.
#[derive(Clone, Copy, PartialEq)]
enum Stored {
    As(DType),
    F64,
    F16,
    BF16,
}

impl Stored {
    fn of(data_type: i32) -> Option<Stored> {
        match DataType::try_from(data_type).ok()? {
            DataType::Double => Some(Stored::F64),
            DataType::Float16 => Some(Stored::F16),
            DataType::Bfloat16 => Some(Stored::BF16),
            _ => dtype(data_type).map(Stored::As),
        }
    }

    fn size(self) -> usize {
        match self {
            Stored::As(dtype) => dtype.size(),
            Stored::F64 => 8,
            Stored::F16 | Stored::BF16 => 2,
        }
    }
}

/// The tensor, its external data read from `folder`. Wider and narrower floats become `f32`.
///
/// Nothing is allocated before the data are known to be as long as the shape asks.
pub(super) fn tensor(proto: &TensorProto, folder: Option<&Path>) -> Result<Tensor, String> {
    let data_type = proto.data_type.unwrap_or(0);
    let Some(stored) = Stored::of(data_type) else {
        return Err(format!(
            "type {} is not supported; daq holds float, int8, uint8, int32, int64 and bool",
            type_name(data_type)
        ));
    };
    let shape: Vec<usize> = proto
        .dims
        .iter()
        .map(|&d| usize::try_from(d).map_err(|_| format!("dimensions {:?}", proto.dims)))
        .collect::<Result<_, _>>()?;
    let dtype = if let Stored::As(dtype) = stored { dtype } else { DType::F32 };
    checked_bytes("the tensor", dtype, &shape).map_err(|e| e.to_string())?;
    let count: usize = shape.iter().product();
    if proto.segment.is_some() {
        return Err("data in segments are not supported; save the model again".into());
    }
    let external = proto.data_location == Some(DataLocation::External as i32);
    let bytes = count * stored.size();
    if external {
        let data = external_data(proto, folder, bytes)?;
        return Ok(from_raw(stored, dtype, &shape, &data));
    }
    if let Some(raw) = proto.raw_data.as_ref().filter(|r| !r.is_empty() || count == 0) {
        if raw.len() != bytes {
            return Err(format!("shape {shape:?} needs {bytes} bytes, there are {}", raw.len()));
        }
        return Ok(from_raw(stored, dtype, &shape, raw));
    }
    let found = match stored {
        Stored::As(DType::F32) => proto.float_data.len(),
        Stored::F64 => proto.double_data.len(),
        Stored::As(DType::I64) => proto.int64_data.len(),
        _ => proto.int32_data.len(),
    };
    if found != count {
        return Err(format!("shape {shape:?} needs {count} elements, there are {found}"));
    }
    let ints = &proto.int32_data;
    let floats = |f: fn(u16) -> f32| -> Vec<f32> { ints.iter().map(|&v| f(v as u16)).collect() };
    Ok(match stored {
        Stored::As(DType::F32) => Tensor::from_slice(&shape, &proto.float_data),
        Stored::F64 => {
            let data: Vec<f32> = proto.double_data.iter().map(|&v| v as f32).collect();
            Tensor::from_slice(&shape, &data)
        }
        Stored::F16 => Tensor::from_slice(&shape, &floats(f16_to_f32)),
        Stored::BF16 => Tensor::from_slice(&shape, &floats(bf16_to_f32)),
        Stored::As(DType::I64) => Tensor::from_slice(&shape, &proto.int64_data),
        Stored::As(DType::I32) => Tensor::from_slice(&shape, ints),
        Stored::As(dtype) => {
            let byte = |v: i32| if dtype == DType::Bool { (v != 0) as u8 } else { v as u8 };
            let data: Vec<u8> = ints.iter().map(|&v| byte(v)).collect();
            Tensor::from_bytes(dtype, &shape, &data)
        }
    })
}

/// Little-endian elements of the right length as a tensor.
fn from_raw(stored: Stored, dtype: DType, shape: &[usize], raw: &[u8]) -> Tensor {
    let mut bytes = AlignedBytes::zeroed(raw.len() / stored.size() * dtype.size());
    let out = bytes.as_mut_slice();
    let half = |f: fn(u16) -> f32, out: &mut [u8]| {
        for (o, i) in out.chunks_exact_mut(4).zip(raw.chunks_exact(2)) {
            o.copy_from_slice(&f(u16::from_le_bytes([i[0], i[1]])).to_le_bytes());
        }
    };
    match stored {
        Stored::As(DType::Bool) => {
            for (o, i) in out.iter_mut().zip(raw) {
                *o = (*i != 0) as u8;
            }
        }
        Stored::As(_) => out.copy_from_slice(raw),
        Stored::F64 => {
            for (o, i) in out.chunks_exact_mut(4).zip(raw.chunks_exact(8)) {
                let wide = f64::from_le_bytes(i.try_into().expect("chunks of 8"));
                o.copy_from_slice(&(wide as f32).to_le_bytes());
            }
        }
        Stored::F16 => half(f16_to_f32, out),
        Stored::BF16 => half(bf16_to_f32, out),
    }
    Tensor::from_aligned(dtype, shape, bytes)
}

/// The `length` bytes of a tensor that lie in a file of their own, which must be within `folder`.
fn external_data(
    proto: &TensorProto,
    folder: Option<&Path>,
    length: usize,
) -> Result<Vec<u8>, String> {
    let entry = |key: &str| {
        let found = proto.external_data.iter().find(|e| e.key.as_deref() == Some(key));
        found.and_then(|e| e.value.as_deref())
    };
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(text) => match text.parse::<u64>() {
            Ok(n) => Ok(Some(n)),
            Err(_) => Err(format!("external data: `{key}` is `{text}`, not a number")),
        },
    };
    let Some(folder) = folder else {
        return Err("external data need the model's folder; read the model from its file".into());
    };
    let location = entry("location").ok_or("external data without a location")?;
    let relative = Path::new(location);
    let inside =
        relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    let outside = || {
        format!("external data `{location}` lie outside of the model's folder; move them into it")
    };
    if !inside || location.is_empty() {
        return Err(outside());
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let read_error = |e: std::io::Error| {
        format!("external data `{location}`: {e}; keep this file beside the model")
    };
    let path = folder.join(relative).canonicalize().map_err(read_error)?;
    if !path.starts_with(folder.canonicalize().map_err(read_error)?) {
        return Err(outside());
    }
    // Asked before opening: a pipe would block.
    let meta = std::fs::metadata(&path).map_err(read_error)?;
    if !meta.is_file() {
        return Err(format!("external data `{location}` are not a regular file"));
    }
    let offset = number("offset")?.unwrap_or(0);
    let declared = number("length")?;
    let available = meta.len().saturating_sub(offset);
    if declared.is_some_and(|n| n != length as u64) || available < length as u64 {
        return Err(format!(
            "external data `{location}`: the tensor needs {length} bytes from offset {offset}, \
             {} are declared and the file has {}",
            declared.unwrap_or(length as u64),
            meta.len()
        ));
    }
    let mut file = File::open(&path).map_err(read_error)?;
    file.seek(SeekFrom::Start(offset)).map_err(read_error)?;
    let mut data = vec![0; length];
    file.read_exact(&mut data).map_err(read_error)?;
    Ok(data)
}

fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

fn f16_to_f32(bits: u16) -> f32 {
    let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (bits >> 10 & 31, (bits & 1023) as u32);
    match exponent {
        31 => f32::from_bits((bits as u32 >> 15) << 31 | 0x7f80_0000 | mantissa << 13),
        // Exact: 2^-24 is a normal f32.
        0 => sign * mantissa as f32 * f32::from_bits((127 - 24) << 23),
        _ => f32::from_bits(
            (bits as u32 >> 15) << 31 | (exponent as u32 + 112) << 23 | mantissa << 13,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::StringStringEntryProto;
    use super::*;

    fn proto(data_type: DataType, dims: &[i64]) -> TensorProto {
        TensorProto { data_type: Some(data_type as i32), dims: dims.to_vec(), ..Default::default() }
    }

    #[test]
    fn typed_fields_and_raw_bytes_agree() {
        let typed = [
            TensorProto { float_data: vec![1.5, -2.0], ..proto(DataType::Float, &[2]) },
            TensorProto { double_data: vec![1.5, -2.0], ..proto(DataType::Double, &[2]) },
            TensorProto { int32_data: vec![0x3e00, 0xc000], ..proto(DataType::Float16, &[2]) },
            TensorProto { int32_data: vec![0x3fc0, 0xc000], ..proto(DataType::Bfloat16, &[2]) },
        ];
        let raw: [Vec<u8>; 4] = [
            [1.5f32, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect(),
            [1.5f64, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect(),
            vec![0x00, 0x3e, 0x00, 0xc0],
            vec![0xc0, 0x3f, 0x00, 0xc0],
        ];
        for (typed, raw) in typed.into_iter().zip(raw) {
            assert_eq!(tensor(&typed, None).unwrap().data::<f32>(), [1.5, -2.0]);
            let data_type = DataType::try_from(typed.data_type.unwrap()).unwrap();
            let raw = TensorProto { raw_data: Some(raw), ..proto(data_type, &[2]) };
            assert_eq!(tensor(&raw, None).unwrap().data::<f32>(), [1.5, -2.0]);
        }
        let bytes = TensorProto { int32_data: vec![-3, 127], ..proto(DataType::Int8, &[2]) };
        assert_eq!(tensor(&bytes, None).unwrap().data::<i8>(), [-3, 127]);
        let bytes = TensorProto { int32_data: vec![0, 255], ..proto(DataType::Uint8, &[2]) };
        assert_eq!(tensor(&bytes, None).unwrap().data::<u8>(), [0, 255]);
        let flags = TensorProto { raw_data: Some(vec![0, 7]), ..proto(DataType::Bool, &[2]) };
        assert_eq!(tensor(&flags, None).unwrap().bytes(), [0, 1]);
        let long = TensorProto { int64_data: vec![-1], ..proto(DataType::Int64, &[]) };
        assert_eq!(tensor(&long, None).unwrap().data::<i64>(), [-1]);
    }

    #[test]
    fn half_floats_are_exact() {
        let smallest = 2f32.powi(-24);
        for (bits, value) in [
            (0x0000, 0.0),
            (0x0001, smallest),
            (0x03ff, 1023.0 * smallest),
            (0x0400, 2f32.powi(-14)),
            (0x3555, 0.333_251_95),
            (0x7bff, 65504.0),
            (0xfbff, -65504.0),
            (0x7c00, f32::INFINITY),
        ] {
            assert_eq!(f16_to_f32(bits), value, "{bits:04x}");
        }
        assert!(f16_to_f32(0x7e00).is_nan());
        assert!(f16_to_f32(0x8000).is_sign_negative());
    }

    #[test]
    fn forged_shapes_and_types_are_errors() {
        let huge = i64::MAX;
        for bad in [
            proto(DataType::Float, &[2]),
            proto(DataType::Float, &[huge]),
            proto(DataType::Float, &[huge, huge]),
            proto(DataType::Float, &[-1]),
            proto(DataType::Float, &[1 << 28]),
            proto(DataType::Int4, &[0]),
            proto(DataType::String, &[0]),
            TensorProto { raw_data: Some(vec![0; 7]), ..proto(DataType::Float, &[2]) },
            TensorProto { float_data: vec![0.0; 3], ..proto(DataType::Float, &[2]) },
            TensorProto { data_type: Some(999), ..Default::default() },
        ] {
            assert!(tensor(&bad, None).is_err(), "{bad:?}");
        }
        assert_eq!(tensor(&proto(DataType::Float, &[0, 3]), None).unwrap().shape(), [0, 3]);
    }

    #[test]
    fn external_data_stay_in_the_folder() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("model");
        std::fs::create_dir_all(folder.join("sub")).unwrap();
        std::fs::write(outer.path().join("secret"), [0; 8]).unwrap();
        let bytes: Vec<u8> = [9f32, 1.5, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        std::fs::write(folder.join("sub/weights.bin"), bytes).unwrap();
        let absolute = outer.path().join("secret").to_string_lossy().into_owned();
        let read = |location: &str, offset: &str, length: &str| {
            let entry = |k: &str, v: &str| StringStringEntryProto {
                key: Some(k.into()),
                value: Some(v.into()),
            };
            let external = TensorProto {
                data_location: Some(DataLocation::External as i32),
                external_data: vec![
                    entry("location", location),
                    entry("offset", offset),
                    entry("length", length),
                ],
                ..proto(DataType::Float, &[2])
            };
            tensor(&external, Some(&folder))
        };
        let good = read("sub/weights.bin", "4", "8").unwrap();
        assert_eq!(good.data::<f32>(), [1.5, -2.0]);
        assert_eq!(read("./sub/weights.bin", "4", "8").unwrap(), good);
        for (location, offset, length, part) in [
            ("../secret", "0", "8", "outside"),
            (absolute.as_str(), "0", "8", "outside"),
            ("sub/../../secret", "0", "8", "outside"),
            ("", "0", "8", "outside"),
            ("missing", "0", "8", "missing"),
            ("sub", "0", "8", "regular"),
            ("sub/weights.bin", "8", "8", "needs 8 bytes"),
            ("sub/weights.bin", "0", "12", "12 are declared"),
            ("sub/weights.bin", "18446744073709551615", "8", "needs 8 bytes"),
            ("sub/weights.bin", "-1", "8", "not a number"),
        ] {
            let error = read(location, offset, length).unwrap_err();
            assert!(error.contains(part), "{location} {offset} {length}: {error}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("../secret", folder.join("link")).unwrap();
            assert!(read("link", "0", "8").unwrap_err().contains("outside"));
        }
    }
}
