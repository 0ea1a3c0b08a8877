//! Acos: the inverse cosine. Opsets 7, 22.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Acos: the inverse cosine.
    Acos,
    libm::acosf
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        assert_unary(Acos, &[(1.0, 0.0), (0.0, 1.5707964), (-1.0, 3.1415927), (0.5, 1.0471976), (2.0, f32::NAN)]);
    }
}
