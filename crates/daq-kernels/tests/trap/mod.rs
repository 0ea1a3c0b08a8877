//! AVX-VNNI on CPUs without it: a handler of SIGILL that computes `vpdpbusd` and `vpdpbusds`.
//!
//! The kernels run as they are; each of those instructions stops at the handler, which decodes it,
//! computes it on the registers of the interrupted thread, and goes on after it. A CPU that has
//! AVX-VNNI never stops there, so that [`each_step`] runs code one instruction at a time (the trap
//! flag, SIGTRAP): the handler then takes those instructions away before the CPU sees them.

use std::arch::x86_64::__cpuid_count;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use iced_x86::{Code, Decoder, DecoderOptions, OpKind, Register};
use libc::{c_int, c_void, siginfo_t, ucontext_t};

/// Instructions that were computed here.
pub static COMPUTED: AtomicU64 = AtomicU64::new(0);
/// Where the upper halves of the AVX registers lie in a saved state.
static UPPER: AtomicUsize = AtomicUsize::new(0);

/// What says that a saved state goes on after its first 512 bytes, and where that is said.
const MAGIC: (usize, u32) = (464, 0x4650_5853);
/// Where the lower halves begin, and the bits of what is present (2: lower halves, 4: upper ones).
const LOWER: usize = 160;
const PRESENT: usize = 512;

/// Takes over SIGILL and SIGTRAP.
pub fn install() {
    // The decoder makes its tables when it is first used; a handler must not allocate.
    let product = [0xc4, 0xe2, 0x75, 0x50, 0xc2];
    let decoded = Decoder::with_ip(64, &product, 0, DecoderOptions::NONE).decode();
    assert_eq!(decoded.code(), Code::VEX_Vpdpbusd_ymm_ymm_ymmm256);
    UPPER.store(__cpuid_count(0xd, 2).ebx as usize, Ordering::Relaxed);
    for (signal, handler) in [(libc::SIGILL, illegal as Handler), (libc::SIGTRAP, step)] {
        // SAFETY: the handlers have the type that `SA_SIGINFO` asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
        }
    }
}

/// Runs code one instruction at a time, so that [`install`]'s handler computes the products on every
/// CPU: some 10 us an instruction.
pub fn each_step<T>(run: impl FnOnce() -> T) -> T {
    // SAFETY: the stack is as before; the trap flag has no effect but SIGTRAP, which is taken.
    unsafe { std::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    let result = run();
    // SAFETY: as above.
    unsafe { std::arch::asm!("pushfq", "and qword ptr [rsp], -0x101", "popfq") };
    result
}

type Handler = unsafe extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

/// Aligns the stack, which qemu 7.2 does not when it calls a handler, for the handler proper.
#[unsafe(naked)]
unsafe extern "C" fn illegal(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    std::arch::naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "and rsp, -16",
        "call {}",
        "mov rsp, rbp",
        "pop rbp",
        "ret",
        sym illegal_aligned
    )
}

unsafe extern "C" fn illegal_aligned(signal: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the system gives the context of the interrupted thread.
    unsafe {
        if !compute(context.cast()) {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

unsafe extern "C" fn step(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: as above. There is no step between one product and the next.
    unsafe { while compute(context.cast()) {} }
}

/// Computes the instruction that is next and steps over it, if it is one of those.
unsafe fn compute(context: *mut ucontext_t) -> bool {
    // SAFETY: the system gives the context of the interrupted thread, whose instruction pointer and
    // registers are good for what the instruction reads; the layout is that of `XSAVE`.
    unsafe {
        let registers = &mut (*context).uc_mcontext.gregs;
        let next = registers[libc::REG_RIP as usize] as u64;
        let code = next as *const u8;
        // Both are encoded with three bytes of prefix; 15 bytes could reach beyond the code.
        if *code != 0xc4 || !matches!(*code.add(3), 0x50 | 0x51) {
            return false;
        }
        let code = std::slice::from_raw_parts(code, 10);
        let instruction = Decoder::with_ip(64, code, next, DecoderOptions::NONE).decode();
        let (lanes, saturates) = match instruction.code() {
            Code::VEX_Vpdpbusd_xmm_xmm_xmmm128 => (4, false),
            Code::VEX_Vpdpbusd_ymm_ymm_ymmm256 => (8, false),
            Code::VEX_Vpdpbusds_xmm_xmm_xmmm128 => (4, true),
            Code::VEX_Vpdpbusds_ymm_ymm_ymmm256 => (8, true),
            _ => return false,
        };
        let state = (*context).uc_mcontext.fpregs.cast::<u8>();
        let upper = state.add(UPPER.load(Ordering::Relaxed));
        if state.add(MAGIC.0).cast::<u32>().read_unaligned() != MAGIC.1 {
            return false;
        }
        // What is not present is zero, whatever lies there.
        let present = state.add(PRESENT).cast::<u64>();
        if *present & 2 == 0 {
            state.add(LOWER).write_bytes(0, 256);
        }
        if *present & 4 == 0 {
            upper.write_bytes(0, 256);
        }
        *present |= 6;
        let halves = |register: Register| {
            let at = register.number() * 16;
            [state.add(LOWER + at), upper.add(at)].map(|half| half.cast::<[u8; 16]>())
        };
        let read = |register| -> [u8; 32] {
            let [low, high] = halves(register);
            std::array::from_fn(|i| if i < 16 { (*low)[i] } else { (*high)[i - 16] })
        };
        let codes = read(instruction.op1_register());
        let weights = match instruction.op2_kind() {
            OpKind::Memory => {
                let value = |register, _, _| general(registers, register);
                let Some(address) = instruction.virtual_address(2, 0, value) else { return false };
                let mut weights = [0; 32];
                std::ptr::copy_nonoverlapping(
                    address as *const u8,
                    weights.as_mut_ptr(),
                    lanes * 4,
                );
                weights
            }
            _ => read(instruction.op2_register()),
        };
        let before = read(instruction.op0_register());
        let mut after = [0; 32];
        for at in (0..lanes * 4).step_by(4) {
            let products = |i| i64::from(codes[at + i]) * i64::from(weights[at + i] as i8);
            let sum = i32::from_le_bytes([0, 1, 2, 3].map(|i| before[at + i]));
            let sum = i64::from(sum) + (0..4).map(products).sum::<i64>();
            let sum = match saturates {
                true => sum.clamp(i32::MIN.into(), i32::MAX.into()),
                false => sum,
            };
            after[at..at + 4].copy_from_slice(&(sum as i32).to_le_bytes());
        }
        let [low, high] = halves(instruction.op0_register());
        (*low).copy_from_slice(&after[..16]);
        (*high).copy_from_slice(&after[16..]);
        registers[libc::REG_RIP as usize] = instruction.next_ip() as i64;
    }
    COMPUTED.fetch_add(1, Ordering::Relaxed);
    true
}

/// The value of a register of an address; segments are at 0, but for those of threads.
fn general(registers: &[libc::greg_t; 23], register: Register) -> Option<u64> {
    use Register as R;
    let at = match register {
        R::RAX => libc::REG_RAX,
        R::RBX => libc::REG_RBX,
        R::RCX => libc::REG_RCX,
        R::RDX => libc::REG_RDX,
        R::RSI => libc::REG_RSI,
        R::RDI => libc::REG_RDI,
        R::RBP => libc::REG_RBP,
        R::RSP => libc::REG_RSP,
        R::R8 => libc::REG_R8,
        R::R9 => libc::REG_R9,
        R::R10 => libc::REG_R10,
        R::R11 => libc::REG_R11,
        R::R12 => libc::REG_R12,
        R::R13 => libc::REG_R13,
        R::R14 => libc::REG_R14,
        R::R15 => libc::REG_R15,
        R::CS | R::DS | R::ES | R::SS => return Some(0),
        _ => return None,
    };
    Some(registers[at as usize] as u64)
}
