//! The LDL factor of a covariance matrix, for [`rounding`](super::rounding).

/// Pivots that are taken over by the other rows together, so that those stay in the cache.
const BLOCK: usize = 32;

/// Added to the diagonal, as a part of its mean.
const DAMPING: f64 = 0.01;

/// `L` of `H = L D Lᵀ`, unit lower triangular, by columns: column `k` holds the elements below
/// the diagonal.
#[derive(Clone, Debug)]
pub struct Factor {
    size: usize,
    columns: Vec<f32>,
}

impl Factor {
    /// Factors the covariance of `size` inputs that `rows` rows were seen of. What few rows say
    /// about pairs of inputs is trusted less: elements beside the diagonal shrink by
    /// `rows / (rows + size)`.
    pub fn of(size: usize, rows: usize, covariance: &dyn Fn(usize, usize) -> f64) -> Factor {
        let trust = rows as f64 / (rows as f64 + size as f64);
        let mean = (0..size).map(|i| covariance(i, i)).sum::<f64>() / size as f64;
        let damping = (DAMPING * mean).max(1e-6);
        // The upper triangle, row by row; pivot row k becomes d_k times column k of L.
        let mut a = vec![0f64; size * size];
        for i in 0..size {
            for j in i..size {
                a[i * size + j] = match i == j {
                    true => covariance(i, i).max(0.0) + damping,
                    false => covariance(i, j) * trust,
                };
            }
        }
        for start in (0..size).step_by(BLOCK) {
            let end = (start + BLOCK).min(size);
            for i in start + 1..size {
                let (above, row) = a.split_at_mut(i * size);
                let row = &mut row[i..size];
                for k in start..end.min(i) {
                    let pivot = &above[k * size..][..size];
                    let part = pivot[i] / pivot[k];
                    row.iter_mut().zip(&pivot[i..]).for_each(|(x, p)| *x -= part * p);
                }
                // Rounding may have eaten up what a damped diagonal keeps.
                row[0] = row[0].max(damping * 0.5);
            }
        }
        let mut columns = Vec::with_capacity(size * (size - 1) / 2);
        for k in 0..size {
            let pivot = a[k * size + k];
            columns.extend(a[k * size + k + 1..(k + 1) * size].iter().map(|x| (x / pivot) as f32));
        }
        Factor { size, columns }
    }

    /// The number of inputs.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Column `k` below the diagonal.
    pub fn column(&self, k: usize) -> &[f32] {
        let start = k * self.size - k * (k + 1) / 2;
        &self.columns[start..][..self.size - k - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_multiplies_back() {
        let n = 70;
        let h = |i: usize, j: usize| {
            let x = (i as f64 - j as f64) / 5.0;
            (-x * x).exp() + if i == j { 0.5 } else { 0.0 }
        };
        // So many rows that nothing shrinks.
        let factor = Factor::of(n, usize::MAX >> 8, &h);
        let l = |i: usize, k: usize| match i.cmp(&k) {
            std::cmp::Ordering::Less => 0.0,
            std::cmp::Ordering::Equal => 1.0,
            std::cmp::Ordering::Greater => f64::from(factor.column(k)[i - k - 1]),
        };
        // D is not kept: it follows from the diagonal.
        let mut d = vec![0.0; n];
        for i in 0..n {
            let above: f64 = (0..i).map(|k| l(i, k).powi(2) * d[k]).sum();
            d[i] = h(i, i) + DAMPING * 1.5 - above;
        }
        for i in 0..n {
            for j in 0..i {
                let product: f64 = (0..=j).map(|k| l(i, k) * d[k] * l(j, k)).sum();
                assert!((product - h(i, j)).abs() < 1e-5, "{i} {j}: {product} {}", h(i, j));
            }
        }
    }
}
