//! Moving elements: one copy loop for every operator whose output is a rearrangement of its input.
//!
//! The offset of an output element's source is a sum of one term per output axis, so an operator
//! gives one table per axis and no loop of its own. Trailing axes that lie in one piece are merged
//! and copied as rows.

use std::ops::Range;

use daq_kernels::Pool;

use super::*;
use crate::tensor::checked_bytes;

/// Marks an index whose elements come from nowhere: they get the fill value.
pub(crate) const FILL: u32 = u32::MAX;

/// The longest axis that an operator gives a table for.
const MAX_AXIS: usize = 1 << 24;

/// Where the elements of an output come from.
#[derive(Clone, Debug)]
pub(crate) struct Moves {
    base: usize,
    outer: Vec<Vec<u32>>,
    /// Elements of a row, and the runs that it consists of: an offset in the input, or [`FILL`], and
    /// how many elements lie together there.
    inner: usize,
    runs: Vec<(u32, usize)>,
}

/// With fewer elements in a run, a table for each of them is faster.
const SHORTEST_RUN: usize = 4;

impl Moves {
    /// From one table of input offsets (in elements, or [`FILL`]) for each output axis.
    pub(crate) fn new(mut tables: Vec<Vec<u32>>) -> Self {
        let (mut base, mut inner) = (0, 1);
        while let Some(table) = tables.last() {
            let Some(&first) = table.first() else { break };
            let follows = |(i, &o): (usize, &u32)| {
                o != FILL && (o as usize).checked_sub(first as usize) == Some(i * inner)
            };
            if !table.iter().enumerate().all(follows) {
                break;
            }
            base += first as usize;
            inner *= table.len();
            tables.pop();
        }
        let mut runs = vec![(0, inner)];
        if let Some(table) = tables.last() {
            let of_axis = runs_of(table, inner);
            if of_axis.len() * SHORTEST_RUN <= table.len() * inner && of_axis.len() < table.len() {
                inner *= table.len();
                runs = of_axis;
                tables.pop();
            }
        }
        Moves { base, outer: tables, inner, runs }
    }

    /// From the stride of each output axis in the input.
    pub(crate) fn strided(shape: &[usize], strides: &[usize]) -> Self {
        Self::new(shape.iter().zip(strides).map(|(&n, &s)| table(n, s)).collect())
    }

    /// Copies all elements, of `size` bytes each, of `x` into `y`; `fill` holds the bits of the
    /// fill value. A pool shares the work.
    pub(crate) fn run(&self, size: usize, fill: u64, x: &[u8], y: &mut [u8], pool: Option<&Pool>) {
        use bytemuck::{cast_slice, cast_slice_mut};
        match size {
            1 => self.typed(fill as u8, x, y, pool),
            4 => self.typed::<u32>(fill as u32, cast_slice(x), cast_slice_mut(y), pool),
            _ => self.typed::<u64>(fill, cast_slice(x), cast_slice_mut(y), pool),
        }
    }

    fn typed<T: Copy + Send + Sync>(&self, fill: T, x: &[T], y: &mut [T], pool: Option<&Pool>) {
        let rows: usize = self.outer.iter().map(Vec::len).product();
        if y.is_empty() {
            return;
        }
        match pool {
            None => self.rows(0..rows, fill, x, y),
            Some(pool) => {
                let per_task = rows_per_task(pool, rows, self.inner);
                pool.for_each_chunk(y, per_task * self.inner, |i, chunk| {
                    let first = i * per_task;
                    self.rows(first..first + chunk.len() / self.inner, fill, x, chunk);
                });
            }
        }
    }

    fn rows<T: Copy>(&self, rows: Range<usize>, fill: T, x: &[T], mut y: &mut [T]) {
        let Some((last, leading)) = self.outer.split_last() else {
            return self.row(self.base, fill, x, y);
        };
        let mut row = rows.start;
        while row < rows.end {
            let (mut rest, first) = (row / last.len(), row % last.len());
            let count = (last.len() - first).min(rows.end - row);
            let mut base = Some(self.base);
            for table in leading.iter().rev() {
                let offset = table[rest % table.len()];
                rest /= table.len();
                base = base.filter(|_| offset != FILL).map(|b| b + offset as usize);
            }
            let (part, others) = y.split_at_mut(count * self.inner);
            y = others;
            row += count;
            let Some(base) = base else {
                part.fill(fill);
                continue;
            };
            let offsets = &last[first..first + count];
            if self.inner == 1 {
                for (y, &o) in part.iter_mut().zip(offsets) {
                    *y = if o == FILL { fill } else { x[base + o as usize] };
                }
                continue;
            }
            for (y, &o) in part.chunks_exact_mut(self.inner).zip(offsets) {
                match o {
                    FILL => y.fill(fill),
                    o => self.row(base + o as usize, fill, x, y),
                }
            }
        }
    }

    fn row<T: Copy>(&self, base: usize, fill: T, x: &[T], mut y: &mut [T]) {
        for &(offset, len) in &self.runs {
            let (run, others) = y.split_at_mut(len);
            y = others;
            match offset {
                FILL => run.fill(fill),
                offset => copy_row(&x[base + offset as usize..][..len], run),
            }
        }
    }
}

/// The runs of an axis whose entries stand for `inner` elements each.
fn runs_of(table: &[u32], inner: usize) -> Vec<(u32, usize)> {
    let mut runs: Vec<(u32, usize)> = vec![];
    for &offset in table {
        match runs.last_mut() {
            Some((FILL, len)) if offset == FILL => *len += inner,
            Some((first, len))
                if *first != FILL
                    && offset != FILL
                    && *first as usize + *len == offset as usize =>
            {
                *len += inner;
            }
            _ => runs.push((offset, inner)),
        }
    }
    runs
}

/// Copies a slice of the same length; short ones, of which there tend to be many, without a call.
#[inline]
pub(crate) fn copy_row<T: Copy>(from: &[T], to: &mut [T]) {
    /// Two pieces that may overlap.
    #[inline]
    fn two<const N: usize, T: Copy>(from: &[T], to: &mut [T]) {
        to[..N].copy_from_slice(&from[..N]);
        let last = to.len() - N;
        to[last..].copy_from_slice(&from[last..][..N]);
    }
    match to.len() {
        8..16 => two::<8, T>(from, to),
        16..32 => two::<16, T>(from, to),
        32..=64 => two::<32, T>(from, to),
        _ => to.copy_from_slice(from),
    }
}

/// The offsets `0, stride, 2 * stride...` of an axis of `len`.
pub(crate) fn table(len: usize, stride: usize) -> Vec<u32> {
    (0..len).map(|i| (i * stride) as u32).collect()
}

/// Rows of `row_len` elements that one task takes: several tasks per thread, none tiny.
pub(crate) fn rows_per_task(pool: &Pool, rows: usize, row_len: usize) -> usize {
    const LEAST: usize = 4096;
    rows.div_ceil(pool.threads() * 4).max(LEAST / row_len.max(1)).max(1)
}

/// Row-major strides in elements.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    strides
}

/// [`Moves`] as a compiled node.
pub(crate) struct MoveKernel {
    /// Where elements come from.
    pub(crate) moves: Moves,
    /// The bits of the fill value.
    pub(crate) fill: u64,
}

impl Kernel for MoveKernel {
    fn name(&self) -> String {
        "copy".into()
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut], pool: &Pool) {
        let x = inputs[0].expect("checked by infer");
        self.moves.run(x.dtype.size(), self.fill, x.bytes, outputs[0].bytes, Some(pool));
    }
}

/// The one output of an operator that moves elements, with its size checked.
pub(crate) fn moved(
    dtype: DType,
    shape: Vec<usize>,
    inputs: &[Option<Spec>],
) -> Result<Vec<Spec>, OpError> {
    if let Some(axis) = shape.iter().position(|&n| n > MAX_AXIS) {
        return Err(shape_error(format!("output axis {axis} of {shape:?} is too long"), inputs));
    }
    sized(dtype, shape, inputs)
}

/// The one output of an operator, with the sizes of inputs and output checked.
pub(crate) fn sized(
    dtype: DType,
    shape: Vec<usize>,
    inputs: &[Option<Spec>],
) -> Result<Vec<Spec>, OpError> {
    let check = |what: &str, dtype, shape: &[usize]| {
        checked_bytes(what, dtype, shape).map_err(|e| shape_error(e.to_string(), inputs))
    };
    for input in inputs.iter().flatten() {
        check("an input", input.dtype, &input.shape)?;
    }
    check("the output", dtype, &shape)?;
    Ok(vec![Spec { dtype, shape }])
}

/// Axes that may count from the end, each named once, as indices below `rank`.
pub(crate) fn normalize_axes(axes: &[i64], rank: usize) -> Result<Vec<usize>, OpError> {
    let mut found: Vec<usize> = Vec::new();
    for &axis in axes {
        let axis = normalize_axis(axis, rank)?;
        if found.contains(&axis) {
            return Err(OpError::attribute("axes", format!("axis {axis} is named twice")));
        }
        found.push(axis);
    }
    Ok(found)
}

/// Copies input 0 to output 0: `run` of operators that only change the shape.
pub(crate) fn copy(inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
    outputs[0].bytes.copy_from_slice(inputs[0].expect("checked by infer").bytes);
}

/// A list of integers as an attribute.
pub(crate) fn ints(list: impl IntoIterator<Item = i64>) -> Attr {
    Attr::Ints(list.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_name_the_source_of_every_element() {
        let x: Vec<u8> = (0..24).collect(); // [2, 3, 4]
        for (tables, inner, expected) in [
            // All of it, in one piece.
            (vec![table(2, 12), table(3, 4), table(4, 1)], 24, x.clone()),
            // Filled on both sides: runs of 2, 12 and 1.
            (
                vec![vec![0, 8], [vec![FILL; 2], (1..13).collect(), vec![FILL]].concat()],
                15,
                [0, 8]
                    .iter()
                    .flat_map(|o| [vec![99; 2], (o + 1..o + 13).collect(), vec![99]].concat())
                    .collect(),
            ),
            // Axis 1 from 1 on: pieces of 8.
            (
                vec![table(2, 12), vec![4, 8], table(4, 1)],
                8,
                [4u8, 16].iter().flat_map(|&o| o..o + 8).collect(),
            ),
            // Transposed to [4, 2] of row 2.
            (vec![table(4, 1), vec![8, 20]], 1, vec![8, 20, 9, 21, 10, 22, 11, 23]),
            // A filled row, a filled column.
            (vec![vec![0, FILL], vec![1, FILL, 3]], 1, vec![1, 99, 3, 99, 99, 99]),
            (vec![vec![FILL, 4], table(2, 1)], 2, vec![99, 99, 4, 5]),
        ] {
            let moves = Moves::new(tables);
            assert_eq!(moves.inner, inner);
            for pool in [None, Some(&Pool::new(2))] {
                let mut y = vec![0; expected.len()];
                moves.run(1, 99, &x, &mut y, pool);
                assert_eq!(y, expected);
            }
        }
    }

    #[test]
    fn any_split_into_rows_gives_the_same() {
        let x: Vec<u32> = (0..60).collect();
        let moves = Moves::strided(&[4, 5, 3], &[1, 12, 4]);
        let mut whole = vec![0; 60];
        moves.rows(0..60, 0, &x, &mut whole);
        for cut in 0..=60 {
            let mut y = vec![0; 60];
            moves.rows(0..cut, 0, &x, &mut y[..cut]);
            moves.rows(cut..60, 0, &x, &mut y[cut..]);
            assert_eq!(y, whole);
        }
    }
}
