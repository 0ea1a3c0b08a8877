//! What AMX does: the configuration of its tiles, products, and sums that leave.
//!
//! Tiles 0 to 3 hold sums, the others pixels and weights. The compiler has no use for tiles, so they keep what
//! one block of instructions leaves for the next.

use std::arch::asm;
use std::arch::x86_64::*;

/// Bytes of a row of a tile.
pub(crate) const ROW: usize = 64;
/// Most rows of a tile.
pub(crate) const ROWS: usize = 16;

/// A row of a tile.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Line<T, const N: usize>(pub(crate) [T; N]);

/// Makes the tiles of sums and pixels, the first so many, `rows` high, and those of weights, the others, 16.
///
/// # Safety
///
/// This CPU has AMX, and the process may use it.
pub(crate) unsafe fn configure(rows: usize, of_pixels: usize) {
    // The palette, where to go on after a fault, bytes of each row, rows of each tile.
    let mut config = Line([0u8; 64]);
    config.0[0] = 1;
    for tile in 0..8 {
        config.0[16 + 2 * tile] = ROW as u8;
        config.0[48 + tile] = if tile < of_pixels { rows as u8 } else { ROWS as u8 };
    }
    // SAFETY: by the caller; the configuration is a valid one. Nothing else uses tiles.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, preserves_flags, readonly));
    }
}

/// Gives tiles back.
///
/// # Safety
///
/// This CPU has AMX, and the process may use it.
pub(crate) unsafe fn release() {
    // SAFETY: by the caller.
    unsafe { asm!("tilerelease", options(nostack, preserves_flags)) };
}

/// Clears two tiles.
///
/// # Safety
///
/// Tiles are configured. The compiler has no use for them, so they keep their sums.
#[inline]
pub(crate) unsafe fn clear_sums<const ONE: u8, const OTHER: u8>() {
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "tilezero tmm{one}",
            "tilezero tmm{other}",
            one = const ONE,
            other = const OTHER,
            options(nomem, nostack, preserves_flags),
        );
    }
}

/// Fetches a tile of weights two steps from here.
macro_rules! fetch_tile {
    ($from:literal) => {
        fetch_tile!($from: 0 64 128 192 256 320 384 448 512 576 640 704 768 832 896 960)
    };
    ($from:literal: $($line:literal)*) => {
        concat!($("prefetcht0 [{weights} + 4096 + ", $from, " + ", $line, "]\n"),*)
    };
}

/// As [`multiply_first`] and [`multiply_second`], and fetches the weights of the step after the next too: for
/// a core that is shared, where loads do better without products between them.
///
/// # Safety
///
/// As there.
#[inline]
pub(crate) unsafe fn multiply_shared(
    [one, other]: [*const u8; 2],
    stride: usize,
    weights: *const Line<i8, ROW>,
    ahead: *const Line<i8, ROW>,
) {
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "tileloadd tmm4, [{one} + {stride}]",
            "tileloadd tmm6, [{weights} + {row}]",
            "tileloadd tmm7, [{weights} + {row} + 1024]",
            "tileloadd tmm5, [{other} + {stride}]",
            "tdpbusd tmm0, tmm4, tmm6",
            "tdpbusd tmm1, tmm4, tmm7",
            "prefetcht1 [{ahead}]",
            "prefetcht1 [{ahead} + 64]",
            "prefetcht1 [{ahead} + 128]",
            "prefetcht1 [{ahead} + 192]",
            fetch_tile!(0),
            "tdpbusd tmm3, tmm5, tmm7",
            "tdpbusd tmm2, tmm5, tmm6",
            "prefetcht1 [{ahead} + 256]",
            "prefetcht1 [{ahead} + 320]",
            "prefetcht1 [{ahead} + 384]",
            "prefetcht1 [{ahead} + 448]",
            fetch_tile!(1024),
            row = in(reg) ROW,
            one = in(reg) one,
            other = in(reg) other,
            stride = in(reg) stride,
            weights = in(reg) weights,
            ahead = in(reg) ahead,
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// Loads a tile of pixels, 4 or 5.
///
/// # Safety
///
/// Tiles are configured. As many rows of 64 bytes, `stride` apart, can be read from the input.
#[inline]
unsafe fn load_pixels<const TILE: u8>(input: *const u8, stride: usize) {
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "tileloadd tmm{tile}, [{input} + {stride}]",
            input = in(reg) input,
            stride = in(reg) stride,
            tile = const TILE,
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// Fetches 4 rows, which need not be there.
#[inline]
fn fetch(rows: *const Line<i8, ROW>) {
    // SAFETY: a prefetch never faults.
    unsafe {
        asm!(
            "prefetcht1 [{rows}]",
            "prefetcht1 [{rows} + 64]",
            "prefetcht1 [{rows} + 128]",
            "prefetcht1 [{rows} + 192]",
            rows = in(reg) rows,
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// Adds the products of a tile of pixels and two of channels to the tiles 0 and 1, and fetches 4 rows from
/// `ahead` on.
///
/// # Safety
///
/// Tiles are configured. As many rows of 64 bytes, `stride` apart, can be read from the input, and 32 rows
/// of weights.
#[inline]
pub(crate) unsafe fn multiply_first(
    input: *const u8,
    stride: usize,
    weights: *const Line<i8, ROW>,
    ahead: *const Line<i8, ROW>,
) {
    // SAFETY: by the caller.
    unsafe {
        load_pixels::<4>(input, stride);
        multiply_kept(weights);
    }
    fetch(ahead);
}

/// As [`multiply_first`] of another tile of pixels, to the tiles 2 and 3, by the weights that it loaded; fetches
/// the 4 rows after those.
///
/// # Safety
///
/// As there.
#[inline]
pub(crate) unsafe fn multiply_second(input: *const u8, stride: usize, ahead: *const Line<i8, ROW>) {
    // SAFETY: by the caller.
    unsafe {
        load_pixels::<5>(input, stride);
        multiply_kept_second();
    }
    fetch(ahead.wrapping_add(4));
}

/// As [`multiply_first`] of the pixels that it loaded last.
///
/// # Safety
///
/// As there.
#[inline]
pub(crate) unsafe fn multiply_kept(weights: *const Line<i8, ROW>) {
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "tileloadd tmm6, [{weights} + {row}]",
            "tileloadd tmm7, [{weights} + {row} + 1024]",
            "tdpbusd tmm0, tmm4, tmm6",
            "tdpbusd tmm1, tmm4, tmm7",
            row = in(reg) ROW,
            weights = in(reg) weights,
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// As [`multiply_second`] of the pixels that it loaded last.
///
/// # Safety
///
/// Tiles are configured.
#[inline]
pub(crate) unsafe fn multiply_kept_second() {
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "tdpbusd tmm3, tmm5, tmm7",
            "tdpbusd tmm2, tmm5, tmm6",
            options(nomem, nostack, preserves_flags),
        );
    }
}

/// Adds to two tiles the products of the pixels that are there and one tile of channels.
///
/// # Safety
///
/// As for [`multiply_first`], of 16 rows of weights; the pixels are loaded.
#[inline]
pub(crate) unsafe fn multiply_again<const ONE: u8, const OTHER: u8>(weights: *const Line<i8, ROW>) {
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "tileloadd tmm6, [{weights} + {row}]",
            "tdpbusd tmm{one}, tmm4, tmm6",
            "tdpbusd tmm{other}, tmm5, tmm6",
            row = in(reg) ROW,
            weights = in(reg) weights,
            one = const ONE,
            other = const OTHER,
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// Adds the products of the tiles that are there.
///
/// # Safety
///
/// Tiles are configured.
#[inline]
unsafe fn multiply_loaded() {
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "tdpbusd tmm0, tmm4, tmm6",
            "tdpbusd tmm1, tmm4, tmm7",
            "tdpbusd tmm3, tmm5, tmm7",
            "tdpbusd tmm2, tmm5, tmm6",
            options(nomem, nostack, preserves_flags),
        );
    }
}

/// Whether another thread works on this core: there, tiles are loaded one by one and not while others are
/// multiplied, and a load that waits for memory holds up all. Fetching weights into the first-level cache
/// then saves a sixth of a network's time; elsewhere it costs a twelfth. Compares products alone with
/// products and loads, from the first-level cache.
///
/// # Safety
///
/// Tiles are configured, two of them for weights; 32 rows of 64 bytes can be read.
#[inline(never)]
pub(crate) unsafe fn core_is_shared(lines: *const Line<i32, 16>) -> bool {
    const STEPS: usize = 4;
    // The first time fills the caches.
    let [_, alone, loaded] = [true, false, true].map(|loads| {
        // SAFETY: by the caller. The fences keep to the time what belongs to it.
        unsafe {
            _mm_lfence();
            let start = _rdtsc();
            for _ in 0..STEPS {
                match loads {
                    true => {
                        let weights = lines.cast();
                        multiply_first(lines.cast(), ROW, weights, weights);
                        multiply_second(lines.cast(), ROW, weights);
                    }
                    false => multiply_loaded(),
                }
            }
            _mm_lfence();
            // The clock of another CPU may be behind.
            _rdtsc().saturating_sub(start) as f32
        }
    });
    // 1.1 and 1.8 times as long.
    loaded > 1.4 * alone
}

/// Adds the products of four tiles of pixels and one of channels to the tiles 0 to 3, and fetches the weights
/// four steps from here: every other line of them, as the CPU takes two at a time.
///
/// # Safety
///
/// As for [`multiply_first`], of 16 rows of weights; tile 6 is as high as those of pixels.
#[inline]
pub(crate) unsafe fn multiply_four(
    [one, two, three, four]: [*const u8; 4],
    stride: usize,
    weights: *const Line<i8, ROW>,
) {
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "tileloadd tmm7, [{weights} + {row}]",
            "tileloadd tmm4, [{one} + {stride}]",
            "tileloadd tmm5, [{two} + {stride}]",
            "tdpbusd tmm0, tmm4, tmm7",
            fetch_tile!(0: 0 128),
            "tileloadd tmm6, [{three} + {stride}]",
            "tdpbusd tmm1, tmm5, tmm7",
            fetch_tile!(0: 256 384),
            "tileloadd tmm4, [{four} + {stride}]",
            "tdpbusd tmm2, tmm6, tmm7",
            fetch_tile!(0: 512 640),
            "tdpbusd tmm3, tmm4, tmm7",
            fetch_tile!(0: 768 896),
            row = in(reg) ROW,
            one = in(reg) one,
            two = in(reg) two,
            three = in(reg) three,
            four = in(reg) four,
            stride = in(reg) stride,
            weights = in(reg) weights,
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// Adds the products of two tiles of pixels and one of channels to the tiles 0 and 2.
///
/// # Safety
///
/// As for [`multiply_first`], of 16 rows of weights.
#[inline]
pub(crate) unsafe fn multiply_one(
    [one, other]: [*const u8; 2],
    stride: usize,
    weights: *const Line<i8, ROW>,
) {
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "tileloadd tmm4, [{one} + {stride}]",
            "tileloadd tmm6, [{weights} + {row}]",
            "tileloadd tmm5, [{other} + {stride}]",
            "tdpbusd tmm0, tmm4, tmm6",
            "tdpbusd tmm2, tmm5, tmm6",
            row = in(reg) ROW,
            one = in(reg) one,
            other = in(reg) other,
            stride = in(reg) stride,
            weights = in(reg) weights,
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// Stores the sums of a tile: its rows, each a vector, so many vectors apart.
///
/// # Safety
///
/// Tiles are configured; a vector can be written for each row.
#[inline]
pub(crate) unsafe fn store_tile<const TILE: u8>(to: *mut Line<i32, 16>, vectors: usize) {
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "tilestored [{to} + {row}], tmm{tile}",
            to = in(reg) to,
            row = in(reg) vectors * ROW,
            tile = const TILE,
            options(nostack, preserves_flags),
        );
    }
}
