//! Where in the input the windows of a convolution or pooling lie.

use crate::ConvShape;

/// Where each tap begins, counted from the first one, where all lie inside the picture.
pub(crate) fn tap_offsets(shape: &ConvShape) -> Vec<usize> {
    let offset = |tap: usize| {
        let (y, x) = (tap / shape.kernel_w, tap % shape.kernel_w);
        (y * shape.dilation_h * shape.in_w + x * shape.dilation_w) * shape.in_c
    };
    (0..shape.taps()).map(offset).collect()
}

/// The window of one output pixel after another.
pub(crate) struct Window {
    image: usize,
    y: usize,
    x: usize,
}

impl Window {
    pub(crate) fn new(shape: &ConvShape, pixel: usize) -> Self {
        let per_image = shape.out_h * shape.out_w;
        let (image, rest) = (pixel / per_image, pixel % per_image);
        Window { image, y: rest / shape.out_w, x: rest % shape.out_w }
    }

    /// Moves on by `pixels`, which do not pass the end of the row.
    pub(crate) fn advance(&mut self, shape: &ConvShape, pixels: usize) {
        self.x += pixels;
        if self.x == shape.out_w {
            (self.x, self.y) = (0, self.y + 1);
            if self.y == shape.out_h {
                (self.y, self.image) = (0, self.image + 1);
            }
        }
    }

    /// Where the window's first tap begins, if it and the next `run - 1` of its row lie wholly
    /// inside the picture.
    pub(crate) fn inside(&self, shape: &ConvShape, run: usize) -> Option<usize> {
        let y = (self.y * shape.stride_h).checked_sub(shape.pad_top)?;
        let x = (self.x * shape.stride_w).checked_sub(shape.pad_left)?;
        let right = x + (run - 1) * shape.stride_w + (shape.kernel_w.max(1) - 1) * shape.dilation_w;
        (self.x + run <= shape.out_w
            && y + (shape.kernel_h.max(1) - 1) * shape.dilation_h < shape.in_h
            && right < shape.in_w)
            .then(|| ((self.image * shape.in_h + y) * shape.in_w + x) * shape.in_c)
    }

    /// How many windows, from this one on and at most `most`, lie side by side wholly inside the
    /// picture, given that this one does.
    pub(crate) fn run_inside(&self, shape: &ConvShape, most: usize) -> usize {
        let last = self.x * shape.stride_w + (shape.kernel_w.max(1) - 1) * shape.dilation_w;
        let spare = shape.in_w + shape.pad_left - 1 - last;
        most.min(shape.out_w - self.x).min(spare / shape.stride_w + 1)
    }

    /// Calls `put` for each tap with where its pixel begins, or with `None` in the padding.
    pub(crate) fn for_each_tap(
        &self,
        shape: &ConvShape,
        mut put: impl FnMut(usize, Option<usize>),
    ) {
        // Positions before the picture wrap around to huge ones, which lie outside as well.
        let top = (self.y * shape.stride_h).wrapping_sub(shape.pad_top);
        let left = (self.x * shape.stride_w).wrapping_sub(shape.pad_left);
        let mut tap = 0;
        for kernel_y in 0..shape.kernel_h {
            let y = top.wrapping_add(kernel_y * shape.dilation_h);
            let row = (self.image * shape.in_h).wrapping_add(y).wrapping_mul(shape.in_w);
            for kernel_x in 0..shape.kernel_w {
                let x = left.wrapping_add(kernel_x * shape.dilation_w);
                let inside = y < shape.in_h && x < shape.in_w;
                put(tap, inside.then(|| (row + x) * shape.in_c));
                tap += 1;
            }
        }
    }

    /// Calls `put` for each row of the window, which is not dilated horizontally, with how many of
    /// its taps lie before the picture, how many inside, and where the first of these begins.
    pub(crate) fn for_each_row(
        &self,
        shape: &ConvShape,
        mut put: impl FnMut(usize, usize, usize, usize),
    ) {
        let top = (self.y * shape.stride_h).wrapping_sub(shape.pad_top);
        let left = self.x * shape.stride_w;
        let before = shape.pad_left.saturating_sub(left).min(shape.kernel_w);
        let end = (shape.in_w + shape.pad_left).saturating_sub(left).clamp(before, shape.kernel_w);
        for kernel_y in 0..shape.kernel_h {
            let y = top.wrapping_add(kernel_y * shape.dilation_h);
            let inside = if y < shape.in_h { end - before } else { 0 };
            let row = (self.image * shape.in_h).wrapping_add(y).wrapping_mul(shape.in_w);
            let first = row.wrapping_add(left + before).wrapping_sub(shape.pad_left);
            put(kernel_y, before, inside, first.wrapping_mul(shape.in_c));
        }
    }
}
